"""Preplan and anchor tokens on the cases worked by hand."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.metrics import anchor_tokens, preplan_tokens, waad_change
from tests.metrics.patterns import NAN, close

WAAD = torch.tensor([3.0, 1.0, 1.0, 2.0, 0.5])
FAI = torch.tensor([0.1, 0.6, 0.2, 0.5, 0.3])


def test_the_case_worked_by_hand() -> None:
    close(waad_change(WAAD), [2.0, 0.0, 1.0, 1.5, NAN])
    assert preplan_tokens(WAAD).nonzero().flatten().tolist() == [0, 3]
    assert anchor_tokens(FAI).nonzero().flatten().tolist() == [1, 3]


def test_the_whole_share_takes_every_token_that_has_a_score() -> None:
    assert preplan_tokens(WAAD, 1.0).tolist() == [True, True, True, True, False]
    late = torch.tensor([0.5, 0.0, NAN])
    assert anchor_tokens(late, 1.0).tolist() == [True, True, False]


def test_many_equal_scores_select_no_more_than_the_share() -> None:
    assert anchor_tokens(torch.zeros(10), 0.4).nonzero().flatten().tolist() == [0, 1, 2, 3]


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=12))
def test_the_change_is_undefined_at_the_end_alone(values: list[float]) -> None:
    change = waad_change(torch.tensor(values, dtype=torch.float64))
    expected = [abs(a - b) for a, b in pairwise(values)] + [NAN]
    close(change, expected)
