"""What methods against hallucination do to the small LLaVA, beside what was published of them.

`python -m benchmarks.hallucination` describes 500 held-out scenes for each of three seeds in every
way of decoding, asks the questions of POPE's polls, and writes the section of `RESULTS.md`. What
was said is kept in `benchmarks/hallucination/`, so that a run that was stopped goes on.
`--scenes 20 --seeds 1 --trial FOLDER` tries it out elsewhere and prints the section only.
"""

from pathlib import Path
from typing import Annotated

import typer

from attnscope.models.subjects import glimpse
from attnscope.probes import Subject
from benchmarks.hallucination_runs import Scope, run_way, scenes_of, scores_of
from benchmarks.hallucination_tables import (
    claim_table,
    differences,
    score_table,
    seed_table,
    word_table,
)
from benchmarks.hallucination_ways import GREEDY, WAYS, sink_bound, sink_dimensions
from benchmarks.hallucination_words import measure_words
from benchmarks.results import write_section

_FOLDER = Path(__file__).with_name("hallucination")


def section(subject: Subject, matcher: Subject, scope: Scope, words: int) -> str:
    """Run what is not kept yet, and return the section of the results page."""
    dimensions = sink_dimensions(subject)
    entries = {way: run_way(subject, matcher, dimensions, way, scope) for way in WAYS}
    scores = {way: scores_of(kept) for way, kept in entries.items()}
    scenes = [scene for entry in entries[GREEDY] for scene in scenes_of(entry)]
    captions = [text for entry in entries[GREEDY] for text in entry["captions"]]
    path = scope.folder / "words.jsonl"
    measured = measure_words(subject, scenes[:words], captions[:words], path)
    sinks = (
        f"VAR's sink dimensions are {list(dimensions)}, those above {sink_bound(subject):.2f} in "
        "every prompt (20, scaled by the root of the width)."
        if dimensions
        else f"The model has no sink dimension (none above {sink_bound(subject):.2f} in every "
        "prompt: 20, scaled by the root of the width), so that VAR changes nothing."
    )
    return "\n\n".join(
        (
            f"{scope.scenes:,} scenes for each of {scope.seeds} seeds, half of which break the "
            "prior. Beside each score stands its paired difference from greedy decoding with its "
            "95 % bootstrap interval over scenes, in points; bold where it holds no 0.",
            score_table(scores),
            f"{sinks} The time is processor time of a generated token, prompt and all, in batches "
            "of 25.",
            claim_table(differences(scores)),
            seed_table(entries),
            word_table(measured),
        )
    )


def main(
    scenes: Annotated[int, typer.Option(min=2, help="Held-out scenes for each seed.")] = 500,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of scenes.")] = 3,
    words: Annotated[int, typer.Option(min=1, help="Captions whose words are measured.")] = 500,
    trial: Annotated[
        Path | None, typer.Option(help="Keep lines here, and leave the page as it is.")
    ] = None,
) -> None:
    """Run what is not kept yet, and write the section."""
    subject = Subject(*glimpse.load_subject(), name="glimpse")
    matcher = Subject(*glimpse.load_matcher(), name="glimpse matcher")
    scope = Scope(scenes=scenes, seeds=seeds, folder=_FOLDER if trial is None else trial)
    text = section(subject, matcher, scope, words)
    if trial is None:
        write_section("hallucination", text)
    else:
        print(text)


if __name__ == "__main__":
    typer.run(main)
