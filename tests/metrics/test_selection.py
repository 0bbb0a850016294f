"""Selection by rank."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.metrics import MetricError, share_count, top_count, top_share
from tests.metrics.patterns import NAN

SCORES = st.lists(
    st.sampled_from([NAN, 0.0, 0.0, 1.0, 2.0, -1.0]) | st.floats(-5, 5, width=32),
    min_size=1,
    max_size=12,
)


def slow_top(scores: list[float], count: int) -> list[bool]:
    known = [i for i, score in enumerate(scores) if score == score]
    chosen = sorted(known, key=lambda i: (-scores[i], i))[:count]
    return [i in chosen for i in range(len(scores))]


@pytest.mark.parametrize(
    ("share", "total", "count"),
    [(0.4, 5, 2), (0.3, 5, 2), (0.5, 3, 2), (0.3, 160, 48), (0.0, 9, 0), (1.0, 9, 9), (0.1, 4, 0)],
)
def test_a_share_is_the_nearest_whole_number_halves_up(
    share: float, total: int, count: int
) -> None:
    assert share_count(share, total) == count


@settings(deadline=None)
@given(SCORES, st.integers(0, 14))
def test_agrees_with_sorting_a_list(scores: list[float], count: int) -> None:
    assert top_count(torch.tensor(scores), count).tolist() == slow_top(scores, count)


@settings(deadline=None)
@given(SCORES, st.floats(0, 1))
def test_the_count_never_depends_on_ties(scores: list[float], share: float) -> None:
    known = sum(score == score for score in scores)
    chosen = top_share(torch.tensor(scores), share)
    assert int(chosen.sum()) == min(share_count(share, len(scores)), known)


def test_each_row_of_a_batch_is_selected_alone() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 4.0, 4.0, 4.0]])
    assert top_share(scores, 0.5).int().tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_the_share_may_be_of_another_total() -> None:
    assert top_share(torch.tensor([1.0, 2.0, 3.0, NAN]), 0.5, total=2).int().tolist() == [
        0,
        0,
        1,
        0,
    ]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_refuses_a_share_outside_zero_to_one(share: float) -> None:
    with pytest.raises(MetricError, match="it lies between 0 and 1"):
        top_share(torch.zeros(3), share)
