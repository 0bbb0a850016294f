"""The fingerprint of weights."""

import pytest
import torch
from torch import nn

from attnscope.probes.weights import weights_fingerprint


def made(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 500), nn.LayerNorm(500), nn.Linear(500, 1, bias=False))


def test_the_same_weights_bear_the_same_name():
    assert weights_fingerprint(made()) == weights_fingerprint(made())
    assert len(weights_fingerprint(made())) == 16


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[2].weight.data.mul_(1.001),
        lambda model: model[1].bias.data[-1].add_(1),
        lambda model: model.half(),
        lambda model: model.append(nn.Linear(1, 1)),
    ],
)
def test_other_weights_bear_another(change):
    model = made()
    change(model)
    assert weights_fingerprint(model) != weights_fingerprint(made())


def test_weights_that_are_elsewhere_count_by_name_and_shape():
    empty = made().to("meta")
    assert weights_fingerprint(empty) == weights_fingerprint(made(1).to("meta"))
    scalar = nn.Module()
    scalar.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))
    assert len(weights_fingerprint(scalar)) == 16
    assert weights_fingerprint(nn.Module()) == weights_fingerprint(nn.ReLU())
