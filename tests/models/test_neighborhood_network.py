"""NAT and DiNAT: published sizes, the way of a patch, capture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from attnscope.models.neighborhood_network import (
    DINAT_VARIANTS,
    NAT_VARIANTS,
    NatShape,
    NeighborhoodTransformer,
    dinat,
    nat,
)
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = NatShape(
    channels=8,
    depths=(2, 2),
    heads=1,
    expansion=2,
    window=3,
    dilations=(2, 1),
    layer_scale=0.5,
    classes=5,
)


def size(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("mini", 19_984_174), ("tiny", 27_901_582), ("small", 50_719_681), ("base", 89_769_652)],
)
def test_dinat_has_the_published_size(variant: str, parameters: int) -> None:
    with torch.device("meta"):
        assert size(dinat(variant)) == parameters


@pytest.mark.parametrize(
    ("variant", "millions"), [("mini", 20), ("tiny", 28), ("small", 51), ("base", 90)]
)
def test_nat_has_the_published_size(variant: str, millions: int) -> None:
    with torch.device("meta"):
        assert round(size(nat(variant)) / 1e6) == millions


def test_dinat_is_nat_with_every_second_layer_dilated() -> None:
    with torch.device("meta"):
        network = dinat("mini")
    stages: Any = network.stages
    dilations = [[layer.attention.rules[2] for layer in level] for level in stages]
    assert dilations == [[1, 8, 1], [1, 4, 1, 4], [1, 2, 1, 2, 1, 2], [1, 1, 1, 1, 1]]
    assert set(DINAT_VARIANTS) == set(NAT_VARIANTS)


def test_a_pixel_reaches_the_logits_only_through_the_mean_of_all_patches() -> None:
    torch.manual_seed(0)
    network = NeighborhoodTransformer(TINY).double().eval()
    images = normal(0, 2, 3, 32, 24)
    logits = network(images)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(network(images[1:]), logits[1:])  # items do not see each other
    network.norm.weight.data.zero_()
    torch.testing.assert_close(network(images), network.head(network.norm.bias).expand(2, -1))


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    shape = NatShape(channels=2, depths=(1,), heads=1, expansion=1, window=2, classes=2)
    network = NeighborhoodTransformer(shape).double()
    image = normal(0, 1, 3, 8, 8).requires_grad_()
    assert gradcheck(network, (image,), fast_mode=True)
    network(normal(0, 1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NeighborhoodTransformer(TINY)
    trace = assert_capture_keeps_the_contract(
        network, {"pixel_values": torch.randn(1, 3, 48, 24)}, tmp_path
    )
    shapes = [seen.attention.shape[-2:] for seen in trace.observations]
    assert shapes == [(72, 72)] * 2 + [(18, 18)] * 2


def test_small_images_and_unknown_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="a window of 3 with dilation 2 spans 6 positions"):
        NeighborhoodTransformer(TINY)(torch.zeros(1, 3, 16, 16))
    for build in (nat, dinat):
        with pytest.raises(ValueError, match=r"no size 'huge'; there are \['mini', 'tiny'"):
            build("huge")
