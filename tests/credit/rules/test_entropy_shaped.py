"""The entropy bonus on advantages."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.credit import CreditError, EntropyShaped, Readings
from tests.credit.batches import SETTINGS, random_readings


@SETTINGS
@given(st.integers(0, 100))
def test_the_weighted_advantage_is_the_advantage_and_its_bonus(seed):
    readings = random_readings(seed)
    advantage = readings.advantage[:, None]
    entropy = readings.entropy[:, :-1].nan_to_num()
    expected = advantage + torch.minimum(0.4 * entropy, advantage.abs() / 2)
    shaped = EntropyShaped().assign(readings).apply(readings.advantage)
    torch.testing.assert_close(shaped, torch.where(readings.mask, expected, 0))


def test_no_advantage_and_no_entropy_mean_no_bonus():
    readings = Readings(
        mask=torch.ones(3, 2, dtype=torch.bool),
        entropy=torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [torch.nan, 0.0, 0.0]]),
        advantage=torch.tensor([0.0, torch.nan, 1.0]),
    )
    assert EntropyShaped().assign(readings).weights.tolist() == [[1.0, 1.0]] * 3


def test_a_bonus_that_could_turn_an_advantage_is_refused():
    with pytest.raises(CreditError, match="bound >= 1"):
        EntropyShaped(bound=0.5)
