"""`write_results`: a study of hallucination as JSON and as tables of comma-separated text."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from attnscope.app.hallucination_scores import ScoreTable, made_up
from attnscope.app.hallucination_study import Study, Told
from attnscope.probes import Subject
from attnscope.traces import replacement

__all__ = ["study_facts", "write_results"]

_NO_SCORES = pandas.DataFrame(columns=["measure", "method", "value", "low", "high", "table"])


def study_facts(subject: Subject, study: Study, told: Sequence[Told]) -> list[tuple[str, str]]:
    """Return what was asked of what, as names and texts."""
    failed = sum(bool(one.error) for one in told)
    settings = ", ".join(
        f"{part}.{name} = {value if not callable(value) else value.__name__}"
        for part, options in study.settings.items()
        for name, value in options.items()
    )
    return [
        ("model", subject.name),
        ("prompt", study.prompt),
        ("pictures", f"{len(told)}" + (f", {failed} of them failed" if failed else "")),
        ("methods", ", ".join(study.ways)),
        ("settings", settings or "each method's own"),
        ("decoding", "drawn tokens" if study.decoding.samples else "the likeliest token"),
    ]


def write_results(
    subject: Subject,
    told: Sequence[Told],
    tables: Sequence[ScoreTable],
    study: Study,
    paths: Mapping[str, Path],
) -> None:
    """Write all that was said and scored; the pictures that failed are among it."""
    results = {
        "facts": dict(study_facts(subject, study, told)),
        "seed": study.decoding.seed,
        "scores": {
            table.name: [
                {key: None if value != value else value for key, value in row.items()}
                for row in table.rows.to_dict("records")
            ]
            for table in tables
        },
        "pictures": [_entry(one, study) for one in told],
    }
    scores = [table.rows.assign(table=table.name) for table in tables]
    answers = [
        {"picture": one.item.name, "method": way, "question": question, "answer": text}
        for one in told
        for way in one.captions
        for question, text in zip(
            (study.prompt, *(poll.text for poll in one.item.questions)),
            (one.captions[way], *one.answers[way]),
            strict=True,
        )
    ]
    texts = {
        "results.json": json.dumps(results, indent=1, ensure_ascii=False) + "\n",
        "scores.csv": (pandas.concat(scores) if scores else _NO_SCORES).to_csv(index=False),
        "answers.csv": pandas.DataFrame(answers).to_csv(index=False),
    }
    for name, text in texts.items():
        with replacement(paths[name]) as stream:
            stream.write(text.encode("utf-8"))


def _entry(one: Told, study: Study) -> dict[str, Any]:
    objects = one.item.objects
    entry: dict[str, Any] = {"name": one.item.name}
    if one.error:
        return entry | {"error": one.error}
    if objects is not None:
        entry["objects"] = sorted(objects)
        entry["made_up"] = {
            way: made_up(text, objects, study.names) for way, text in one.captions.items()
        }
    return entry | {
        "captions": one.captions,
        "answers": one.answers,
        "words": {
            way: {
                "tokens": list(drawn.tokens),
                **{
                    name: [None if value != value else value for value in values.tolist()]
                    for name, values in drawn.measures.items()
                },
            }
            for way, drawn in (one.card.answers if one.card else {}).items()
        },
    }
