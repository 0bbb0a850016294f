"""The heads of the countdown subject while it learns: `python -m benchmarks.flight`.

Repeats the subject's training from its first step, with a flight recorder that listens at one step
in sixteen, and writes the recording beside the subject, the figure, and the table of `RESULTS.md`.
About an hour on two cores; a killed run goes on where it was. `--drawn` draws and tells the
recording that there is.
"""

import json
import random
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from attnscope.credit import FlightRecorder, read_flight
from attnscope.figures import HeadFlight, head_flight
from attnscope.models.subjects.countdown import (
    FLIGHT,
    load_subject,
    prompt_text,
    sample_problems,
    write_solution,
)
from attnscope.models.subjects.countdown.train import (
    Settings,
    resume_run,
    save_checkpoint,
    train,
)
from attnscope.traces import replacement
from benchmarks.results import write_section

EVERY = 16
FOLDER = Path("build/flight")
PICTURE = Path(__file__).with_name("flight.svg")
THRESHOLDS = {
    "sink_mass": 0.25,
    "previous_token": 0.25,
    "induction": 0.1,
    "duplicate_token": 0.2,
    "head_span": 20.0,
    "fai": 0.02,
}
"""From where on a head counts as one of its kind: our choice, the same at every step."""
TOLD = ("3 numbers", "a random text twice")
"""The texts that the table tells of; the recording holds four numbers, too."""


def probes() -> dict[str, dict[str, torch.Tensor]]:
    """Return the texts that are read at every recording: two worked solutions, and a repetition."""
    _, tokenizer = load_subject()
    tensors = {}
    for numbers in (3, 4):
        problem = sample_problems(1, seed=7, numbers=numbers, split="test")[0]
        text = prompt_text(problem) + write_solution(problem, random.Random(7))  # noqa: S311 - no secret
        tensors[f"{numbers} numbers"] = tokenizer(text, return_tensors="pt")["input_ids"]
    chance = torch.Generator().manual_seed(7)
    drawn = torch.randint(5, len(tokenizer), (1, 48), generator=chance)
    tensors["a random text twice"] = torch.cat([drawn, drawn], dim=1)
    return {name: {"input_ids": ids} for name, ids in tensors.items()}


def record_training(recorder: FlightRecorder, settings: Settings, folder: Path) -> None:
    """Train from the last checkpoint, or from the first step, and record at one step in sixteen."""
    checkpoint, clock = folder / "checkpoint.pt", folder / "seconds.json"
    run = resume_run(settings, checkpoint)
    spent = json.loads(clock.read_text()) if clock.exists() else {"training": 0.0, "recording": 0.0}
    if run.step == 0:
        spent["recording"] += _seconds(lambda: recorder.record(run.model, 0))
    begin = time.perf_counter()
    for loss in train(run, settings):
        spent["training"] += time.perf_counter() - begin
        if run.step % EVERY == 0 or run.step == settings.steps:
            spent["recording"] += _seconds(lambda: recorder.record(run.model, run.step))
            print(f"step {run.step}, loss {loss:.3f}, {spent['training'] / 60:.1f} minutes")
        if run.step % settings.checkpoint_every == 0 or run.step == settings.steps:
            save_checkpoint(run, checkpoint)
            clock.write_text(json.dumps(spent))
        begin = time.perf_counter()


def _seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def join_recordings(folder: Path, path: Path) -> None:
    """Write all parts of a recording as one file."""
    table = read_flight(folder)
    for name in ("probe", "metric"):
        table[name] = table[name].astype("category")
    with replacement(path) as stream:
        table.to_parquet(stream, index=False, compression="zstd")


def tell(seconds: dict[str, float] | None) -> str:
    """Return the table of arrivals, and what recording cost."""
    table = read_flight(FLIGHT)
    lines = [
        f"| kind of head | from | {' | '.join(f'on {text}' for text in TOLD)} |",
        "| --- | --- | --- | --- |",
    ]
    for metric, threshold in THRESHOLDS.items():
        found = [head_flight(table, metric, probe=text, threshold=threshold) for text in TOLD]
        lines.append(f"| {metric} | {threshold:g} | {' | '.join(map(_arrivals, found))} |")
    if seconds is not None:
        share = seconds["recording"] / seconds["training"]
        lines.append(
            f"\nRecording {len(probes())} texts at one step in {EVERY} took {share:.1%} of "
            f"the training's {seconds['training'] / 60:.0f} minutes."
        )
    return "\n".join(lines)


def _arrivals(flight: HeadFlight) -> str:
    """Return how many heads are of a kind at last, and when the first and the middle one came."""
    arrived = [
        (step, *head)
        for step, head in zip(flight.arrivals, flight.heads, strict=True)
        if step is not None
    ]
    if not arrived:
        return f"0 of {len(flight.heads)}"
    step, layer, head = min(arrived)
    middle = sorted(arrived)[(len(arrived) - 1) // 2][0]
    return (
        f"{len(arrived)} of {len(flight.heads)}: the first, L{layer}H{head}, at step {step}, "
        f"half of them by {middle}"
    )


def main(
    steps: Annotated[int, typer.Option(help="Optimizer steps in all.")] = Settings().steps,
    folder: Annotated[Path, typer.Option(help="Where parts and state of the run go.")] = FOLDER,
    drawn: Annotated[bool, typer.Option(help="Draw the recording that there is.")] = False,
) -> None:
    """Record the training, and write recording, figure and table."""
    clock = folder / "seconds.json"
    if not drawn:
        folder.mkdir(parents=True, exist_ok=True)
        recorder = FlightRecorder(folder=folder, probes=probes(), metrics=(*THRESHOLDS, "entropy"))
        record_training(recorder, Settings(steps=steps), folder)
        join_recordings(folder, FLIGHT)
    drawn_kind = "previous_token"
    flight = head_flight(
        read_flight(FLIGHT), drawn_kind, probe=TOLD[0], threshold=THRESHOLDS[drawn_kind]
    )
    flight.matplotlib().savefig(PICTURE)
    write_section("flight", tell(json.loads(clock.read_text()) if clock.exists() else None))


if __name__ == "__main__":
    typer.run(main)
