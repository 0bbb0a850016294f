"""The random control."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.credit import RandomShare, Readings
from attnscope.metrics import share_count
from tests.credit.batches import SETTINGS, random_readings


@SETTINGS
@given(st.integers(0, 100))
def test_every_response_gets_the_share(seed):
    readings = random_readings(seed)
    chosen = (RandomShare().assign(readings).weights == 1.5).sum(-1).tolist()
    assert chosen == [share_count(0.4, n) for n in readings.mask.sum(-1).tolist()]


def test_a_seed_repeats_and_a_batch_does_not():
    first, again, later = (
        RandomShare(seed=3).assign(Readings(mask=torch.ones(2, 40, dtype=torch.bool), draw=draw))
        for draw in (5, 5, 6)
    )
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, later.weights)
