"""Uniform credit."""

import torch

from attnscope.credit import Readings, Uniform


def test_advantages_come_out_bit_by_bit():
    advantage = torch.randn(3, generator=torch.Generator().manual_seed(0))
    readings = Readings(mask=torch.ones(3, 4, dtype=torch.bool))
    shaped = Uniform().assign(readings).apply(advantage)
    assert torch.equal(shaped, advantage[:, None].expand(3, 4))


def test_a_factor_scales_everything():
    readings = Readings(mask=torch.tensor([[True, False]]))
    assert Uniform(factor=1.2).assign(readings).statistics()["weight"] == torch.tensor(1.2).item()
