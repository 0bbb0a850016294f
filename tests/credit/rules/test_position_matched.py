"""The position-matched control."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.credit import CreditError, Global, PositionMatched, Readings
from tests.credit.batches import SETTINGS, by_hand, random_readings


def test_two_responses_exchange_their_weights_at_equal_relative_positions():
    nan = torch.nan
    readings = Readings(
        mask=torch.tensor([[True] * 4, [True, True, False, False]]),
        global_fai=torch.tensor([[0.0, 0.1, 0.9, 0.8], [0.9, 0.1, nan, nan]]),
    )
    assert Global().assign(readings).weights.tolist() == [[1, 1, 1.5, 1.5], [1.5, 1, 0, 0]]
    moved = PositionMatched(rule=Global()).assign(readings)
    assert moved.weights.tolist() == [[1.5, 1.5, 1, 1], [1, 1.5, 0, 0]]
    assert moved.classes["anchor"].tolist() == [
        [True, True, False, False],
        [False, True] + [False] * 2,
    ]


@SETTINGS
@given(st.integers(0, 100))
def test_equal_lengths_keep_the_share_exactly(seed):
    fai = torch.rand(5, 9, generator=torch.Generator().manual_seed(seed))
    readings = Readings(mask=torch.ones(5, 9, dtype=torch.bool), global_fai=fai, draw=seed)
    before, after = Global().assign(readings), PositionMatched(rule=Global()).assign(readings)
    assert sorted(before.weights.tolist()) == sorted(after.weights.tolist())
    assert not torch.equal(before.weights, after.weights)


@SETTINGS
@given(st.integers(0, 100))
def test_nothing_leaves_the_mask(seed):
    readings = random_readings(seed, batch=6)
    weights = PositionMatched(rule=Global()).assign(readings).weights
    assert bool((weights[~readings.mask] == 0).all())
    assert bool((weights[readings.mask] >= 1).all())


def test_one_response_has_nobody_to_take_from():
    with pytest.raises(CreditError, match="the batch has one with tokens"):
        PositionMatched(rule=Global()).assign(by_hand())
