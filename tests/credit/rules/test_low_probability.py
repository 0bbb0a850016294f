"""Damping of unlikely tokens."""

import pytest
import torch

from attnscope.credit import CreditError, LowProbability, Readings


def test_weights_fall_with_the_probability():
    readings = Readings(
        mask=torch.tensor([[True, True, True, False]]),
        log_probability=torch.tensor([[0.0, 0.5, torch.nan, 0.5]]).log(),
    )
    weights = LowProbability(damping=0.4).assign(readings).weights
    torch.testing.assert_close(weights, torch.tensor([[0.6, 0.8, 1.0, 0.0]]))


def test_a_damping_beyond_one_is_refused():
    with pytest.raises(CreditError, match="damping is 2"):
        LowProbability(damping=2.0)
