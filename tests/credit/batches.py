"""Readings made by hand or at random, as credit tests use them."""

import torch
from hypothesis import settings

from attnscope.credit import Readings

SETTINGS = settings(max_examples=40, deadline=None)

WAAD = [3.0, 1.0, 1.0, 2.0, 0.5]
FAI = [0.1, 0.6, 0.2, 0.5, 0.3]


def by_hand(**changes):
    """One response of five tokens, worked out on paper; the row before it is unknown."""
    fields = {
        "mask": torch.ones(1, 5, dtype=torch.bool),
        "local_waad": torch.tensor([[torch.nan, *WAAD]]),
        "global_fai": torch.tensor([FAI]),
        "advantage": torch.tensor([1.0]),
    }
    return Readings(**(fields | changes))


def random_readings(seed, *, batch=4, response=12, horizon=3):
    """Responses of several lengths, an empty one among them, with both signs of advantage."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, response + 1, (batch,), generator=generator)
    lengths[-1] = 0
    token = torch.arange(response)
    mask = token < lengths[:, None]
    rows = torch.arange(response + 1) < lengths[:, None] + 1
    waad = 4 * torch.rand(batch, response + 1, generator=generator)
    fai = torch.rand(batch, response, generator=generator)
    entropy = 2 * torch.rand(batch, response + 1, generator=generator)
    undefined = token >= lengths[:, None] - horizon
    return Readings(
        mask=mask,
        local_waad=waad.masked_fill(~rows, torch.nan),
        global_fai=fai.masked_fill(undefined, torch.nan),
        receiver_fai=fai.flip(0).masked_fill(undefined, torch.nan),
        entropy=entropy.masked_fill(~rows, torch.nan),
        log_probability=-entropy[:, 1:],
        received=fai,
        ids=torch.randint(0, 9, (batch, response), generator=generator),
        advantage=torch.randn(batch, generator=generator),
        draw=seed,
    )
