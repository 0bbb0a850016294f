"""Scores of methods beside those of plain decoding, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas
from rich.table import Table

from attnscope.app.hallucination_methods import PLAIN
from attnscope.app.screen import plain_table, written
from attnscope.metrics import (
    ImageScores,
    chair,
    confidence_table,
    mentioned_objects,
    paired_difference,
    pope,
)

__all__ = ["ScoreTable", "caption_scores", "made_up", "poll_scores"]

_CHAIR = {
    "chair_s": "CHAIR_S",
    "chair_i": "CHAIR_I",
    "recall": "recall",
    "f1": "F1",
    "length": "words",
}
_POPE = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "yes_ratio": "answered yes",
    "unclear": "neither yes nor no",
}
_DECIMALS = {"length": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """Scores of all methods on the same pictures.

    Attributes:
        name: `chair` or `pope`.
        title: What was scored.
        rows: A row per measure and method: `measure`, `method`, `value`, `low`, `high`, and the
            paired difference from plain decoding as `difference`, `difference_low` and
            `difference_high`, which plain decoding itself has none of.
    """

    name: str
    title: str
    rows: pandas.DataFrame

    def printed(self) -> Table:
        """Return the rows for a terminal."""
        table = plain_table(
            "", "method", ">score", ">95 % interval", ">less plain", ">95 % interval",
            title=self.title, caption=_CAPTION,
        )  # fmt: skip
        for cells in self.cells():
            table.add_row(*cells)
        return table

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as texts; a measure is named in the first of its rows."""
        titles = _CHAIR if self.name == "chair" else _POPE
        before, found = "", []
        for row in self.rows.to_dict("records"):
            measure = str(row["measure"])
            decimals = _DECIMALS.get(measure, 3)
            numbers = {name: written(float(row[name]), decimals) for name in _NUMBERS}
            found.append(
                (
                    titles[measure] if measure != before else "",
                    str(row["method"]),
                    numbers["value"],
                    _interval(numbers["low"], numbers["high"]),
                    numbers["difference"],
                    _interval(numbers["difference_low"], numbers["difference_high"]),
                )
            )
            before = measure
        return found


_NUMBERS = ("value", "low", "high", "difference", "difference_low", "difference_high")
_CAPTION = "An interval of the difference that holds no 0 tells a method from plain decoding."


def caption_scores(
    captions: Mapping[str, Sequence[str]],
    truths: Sequence[frozenset[str]],
    names: Mapping[str, str],
    seed: int,
) -> ScoreTable:
    """Return CHAIR of each method's captions of the same pictures.

    Args:
        captions: The captions of each method, plain decoding among them.
        truths: The objects in each picture.
        names: The object that each name stands for.
        seed: Seed of the bootstrap.
    """
    scores = {method: chair(texts, truths, names) for method, texts in captions.items()}
    title = (
        f"Descriptions of {len(truths):,} pictures (CHAIR_S: those with a made-up object; "
        "CHAIR_I: mentions that are made up)"
    )
    return ScoreTable(name="chair", title=title, rows=_compared(scores, _CHAIR, seed))


def poll_scores(
    answers: Mapping[str, Sequence[str]],
    truths: Sequence[str],
    pictures: Sequence[str],
    seed: int,
) -> ScoreTable:
    """Return POPE of each method's answers to the same questions.

    Args:
        answers: The answers of each method, plain decoding among them.
        truths: `yes` or `no` for each question.
        pictures: The picture of each question.
        seed: Seed of the bootstrap.
    """
    scores = {method: pope(texts, truths, pictures) for method, texts in answers.items()}
    title = f"{len(truths):,} yes-or-no questions on {len(set(pictures)):,} pictures (POPE)"
    return ScoreTable(name="pope", title=title, rows=_compared(scores, _POPE, seed))


def made_up(caption: str, truth: frozenset[str], names: Mapping[str, str]) -> list[str]:
    """Return the objects that a caption mentions and that are not there, once each."""
    true = {names.get(" ".join(name.lower().split()), name) for name in truth}
    said = mentioned_objects(caption, names)
    return list(dict.fromkeys(name for name in said if name not in true))


def _compared(
    scores: Mapping[str, ImageScores], measures: Mapping[str, str], seed: int
) -> pandas.DataFrame:
    own = {method: confidence_table(found, seed=seed) for method, found in scores.items()}
    beside = {
        method: paired_difference(found, scores[PLAIN], seed=seed)
        for method, found in scores.items()
        if method != PLAIN
    }
    rows: list[dict[str, Any]] = []
    for measure in measures:
        for method, table in own.items():
            row = {"measure": measure, "method": method, **table.loc[measure]}
            less = beside.get(method)
            for name in ("value", "low", "high"):
                key = f"difference_{name}".removesuffix("_value")
                row[key] = float("nan") if less is None else less.loc[measure, name]
            rows.append(row)
    return pandas.DataFrame(rows)


def _interval(low: str, high: str) -> str:
    return "" if low == high == "-" else f"{low} to {high}"
