"""`pope`: how well a model answers whether an object is in a picture, polled by yes and no."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnscope.metrics.errors import MetricError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["PollScores", "pope", "says_yes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PollScores:
    """The answers to yes-or-no questions, and what would have been right.

    Attributes:
        said: Whether each answer is yes.
        truths: Whether yes is right.
        images: Which picture each question is about; questions of one are drawn together.
        plain: Whether each answer says yes, no or not at all.
    """

    said: tuple[bool, ...]
    truths: tuple[bool, ...]
    images: tuple[Hashable, ...]
    plain: tuple[bool, ...]

    @property
    def counts(self) -> Mapping[str, Tensor]:
        """Return what was counted for each picture, in order of first appearance."""
        places = {image: place for place, image in enumerate(dict.fromkeys(self.images))}
        index = torch.tensor([places[image] for image in self.images])
        said, true = torch.tensor(self.said), torch.tensor(self.truths)
        cells = {
            "true_yes": said & true,
            "false_yes": said & ~true,
            "true_no": ~said & ~true,
            "false_no": ~said & true,
            "unclear": ~torch.tensor(self.plain),
        }
        empty = torch.zeros(len(places), dtype=torch.float64)
        return {name: empty.index_add(0, index, cell.double()) for name, cell in cells.items()}

    def measures_of(self, totals: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the measures from sums of the counts; 0 / 0 is NaN."""
        right, wrong = totals["true_yes"], totals["false_yes"]
        missed = totals["false_no"]
        answers = right + wrong + missed + totals["true_no"]
        return {
            "accuracy": (right + totals["true_no"]) / answers,
            "precision": right / (right + wrong),
            "recall": right / (right + missed),
            "f1": 2 * right / (2 * right + wrong + missed),
            "yes_ratio": (right + wrong) / answers,
            "unclear": totals["unclear"] / answers,
        }

    @property
    def measures(self) -> dict[str, float]:
        """Return the measures of all answers, by name."""
        totals = {name: column.sum() for name, column in self.counts.items()}
        return {name: float(value) for name, value in self.measures_of(totals).items()}

    def to_pandas(self) -> "DataFrame":
        """Return a table with one row per question."""
        import pandas

        columns = {"image": self.images, "said": self.said, "truth": self.truths}
        return pandas.DataFrame(columns | {"plain": self.plain}).rename_axis("question")


def says_yes(answer: str) -> bool:
    """Return how POPE takes an answer: no if its first sentence holds the word no or not, else yes.

    An answer without either word is a yes, an empty one too. Case and punctuation do not matter
    (our reading; the public script splits at blanks, and takes `No!` and `Not` for a yes).

    Example:
        >>> [says_yes(answer) for answer in ("Yes, a dog.", "No.", "There is not. Yes?", "")]
        [True, False, False, True]
    """
    return not {"no", "not"} & _first_words(answer)


def _first_words(answer: str) -> set[str]:
    """Return the words before the first full stop."""
    return set(re.findall(r"\w+", answer.strip().lower().split(".")[0]))


def pope(
    answers: Sequence[str | bool],
    truths: Sequence[str | bool],
    images: Sequence[Hashable] | None = None,
) -> PollScores:
    """Return how well yes-or-no questions about objects are answered.

    `accuracy`, `precision` and `recall` of yes, their `f1`, the `yes_ratio` (answers that are yes),
    and `unclear`: answers that hold neither yes nor no nor not, which count as yes. All lie between
    0 and 1. Precision is NaN where nothing was answered yes, recall where yes is never right.

    Args:
        answers: What the model said to each question: texts, taken as `says_yes` takes them, or
            True for yes.
        truths: What is right: `"yes"`, `"no"` or a truth value.
        images: The picture of each question, so that intervals are over pictures; by default each
            question has its own.

    Raises:
        MetricError: There is no question, the three differ in number, or a truth is another text.

    Reference: Li et al. 2023, arXiv:2305.10355, section 4; `unclear` is ours.

    Example:
        >>> scores = pope(["Yes", "No, it is not", "Yes.", "A dog"], ["yes", "yes", "no", "yes"])
        >>> {name: round(value, 3) for name, value in list(scores.measures.items())[:3]}
        {'accuracy': 0.5, 'precision': 0.667, 'recall': 0.667}
    """
    pictures = tuple(range(len(answers))) if images is None else tuple(images)
    if not answers or not len(answers) == len(truths) == len(pictures):
        raise MetricError(
            f"pope needs one truth and one image per answer; got {len(answers)} answers, "
            f"{len(truths)} truths and {len(pictures)} images"
        )
    return PollScores(
        said=tuple(a if isinstance(a, bool) else says_yes(a) for a in answers),
        truths=tuple(_truth(truth) for truth in truths),
        images=pictures,
        plain=tuple(
            isinstance(a, bool) or bool({"yes", "no", "not"} & _first_words(a)) for a in answers
        ),
    )


def _truth(truth: str | bool) -> bool:
    if isinstance(truth, bool):
        return truth
    word = truth.strip().lower()
    if word not in ("yes", "no"):
        raise MetricError(f"the right answer is 'yes' or 'no'; got {truth!r}")
    return word == "yes"
