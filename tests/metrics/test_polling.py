"""POPE."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.metrics import MetricError, pope, says_yes


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("yes", True),
        ("Yes, there is a dog in the picture. No cat.", True),
        ("No", False),
        ("no, there is none", False),
        ("There is not a dog", False),
        ("NO!\nNothing", False),
        ("nothing", True),
        ("A dog", True),
        ("", True),
    ],
)
def test_answers_are_read_as_the_paper_reads_them(answer: str, yes: bool) -> None:
    assert says_yes(answer) is yes


def test_a_case_counted_by_hand() -> None:
    answers = ["Yes", "Yes", "Yes.", "No", "No", "hm"]
    scores = pope(answers, ["yes", "yes", "no", "no", "yes", "no"])  # tp 2, fp 2, tn 1, fn 1
    assert {name: round(value, 6) for name, value in scores.measures.items()} == {
        "accuracy": 0.5,
        "precision": 0.5,
        "recall": 0.666667,
        "f1": 0.571429,
        "yes_ratio": 0.666667,
        "unclear": 0.166667,
    }
    assert scores.to_pandas().said.tolist() == [True, True, True, False, False, True]


def test_what_is_undefined_is_nan() -> None:
    measures = pope(["no"], [False]).measures
    assert measures["accuracy"] == 1.0
    assert measures["yes_ratio"] == 0.0
    assert all(math.isnan(measures[name]) for name in ("precision", "recall", "f1"))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1))
def test_grouping_by_image_changes_no_measure(polls: list[tuple[bool, bool, int]]) -> None:
    said, true, images = (list(column) for column in zip(*polls, strict=True))
    alone, grouped = pope(said, true), pope(said, true, images)
    assert alone.measures == pytest.approx(grouped.measures, nan_ok=True)
    assert len(grouped.counts["true_yes"]) == len(set(images))
    right = sum(one == other for one, other in zip(said, true, strict=True))
    assert alone.measures["accuracy"] == pytest.approx(right / len(polls))


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(MetricError, match="got 1 answers, 2 truths and 1 images"):
        pope(["yes"], ["yes", "no"])
    with pytest.raises(MetricError, match="got 0 answers"):
        pope([], [])
    with pytest.raises(MetricError, match="'yes' or 'no'; got 'maybe'"):
        pope(["yes"], ["maybe"])
