"""Partial attention against its formulas written out, and the sizes of PATNet."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.attention import AttentionOperator, GateAttention, SoftmaxAttention
from attnscope.models.partial import (
    PartialChannelAttention,
    PartialSelfAttention,
    PartialSpatialAttention,
    distance_buckets,
)
from attnscope.models.partial_network import (
    PATNET_VARIANTS,
    PATNet,
    PATNetBlock,
    PATNetVariant,
)
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = PATNetVariant(width=8, depths=(1, 1, 2), spatial=True, heads=2)


def random(module: nn.Module) -> nn.Module:
    """Give every number of a module a value of its own, in float64 and in eval mode."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.ndim:
            tensor.normal_()
    return module.double().eval()


def operator_of(module: nn.Module, features: Tensor) -> AttentionOperator:
    seen: list[AttentionOperator] = []
    mixing = module.get_submodule("mixing")
    handle = mixing.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    module(features)
    handle.remove()
    return seen[0]


def test_the_spread_of_0_and_2_is_the_root_of_2() -> None:
    module = PartialChannelAttention(4).eval()
    assert isinstance(module.gate, nn.Conv1d)
    nn.init.zeros_(module.gate.weight)
    with torch.no_grad():
        module.gate.weight[0, 0] = torch.tensor([0.0, 1.0])  # the spread of the first channel
    module.gate_norm.eps = 0.0
    image = torch.zeros(1, 4, 1, 2)
    image[0, 1, 0] = torch.tensor([0.0, 2.0])  # x2 starts at channel 1
    gate = operator_of(module, image)
    assert isinstance(gate, GateAttention)
    expected = (math.sqrt(2) + 3) / 6  # the hard sigmoid
    assert gate.gate[0, 0].tolist() == pytest.approx([expected, 0.5, 0.5])


def test_channels_are_gated_by_their_means_and_spreads() -> None:
    module = random(PartialChannelAttention(8))
    assert isinstance(module, PartialChannelAttention)
    features = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    part, rest = features[:, :2], features[:, 2:]
    for item in range(2):
        facts = torch.stack([rest[item].flatten(1).mean(1), rest[item].flatten(1).std(1)], dim=1)
        logits = torch.stack([(module.gate.weight[row] * facts).sum() for row in range(6)])
        norm = module.gate_norm(logits.reshape(1, 6, 1)).flatten()
        gate = ((norm + 3) / 6).clamp(0, 1)
        operator = operator_of(module, features).item(item)
        torch.testing.assert_close(operator.dense()[0], torch.diag(gate))
        expected = torch.cat(
            [
                module.convolution(part[item : item + 1]),
                module.norm((rest[item] * gate[:, None, None]).unsqueeze(0)),
            ],
            dim=1,
        )
        torch.testing.assert_close(module(features)[item], expected[0])
    assert operator_of(module, features).query_axis == "channel"


def test_self_attention_is_softmax_with_a_bias_by_distance() -> None:
    module = random(PartialSelfAttention(8, 2))
    assert isinstance(module, PartialSelfAttention)
    features = torch.randn(1, 8, 2, 3, dtype=torch.float64)
    tokens = module.norm(features[0, 2:].flatten(1).T)
    query, key, value = module.query_key_value(tokens).chunk(3, dim=-1)
    places = list(product(range(2), range(3)))
    patterns, mixed = [], []
    for head, channels in enumerate(torch.arange(6).chunk(2)):
        scores = query[:, channels] @ key[:, channels].T / 3**0.5
        for i, j in product(range(6), repeat=2):
            bucket = 40 + round(math.dist(places[i], places[j]))
            scores[i, j] = scores[i, j] + module.distance_bias[head, bucket]
        patterns.append(scores.softmax(-1))
        mixed.append(patterns[-1] @ value[:, channels])
    read = module.output(torch.cat(mixed, dim=-1)).T.reshape(1, 6, 2, 3)
    expected = torch.cat([module.convolution(features[:, :2]), read], dim=1)
    torch.testing.assert_close(module(features), expected)
    operator = operator_of(module, features)
    assert isinstance(operator, SoftmaxAttention)
    torch.testing.assert_close(operator.dense()[0], torch.stack(patterns))


def test_half_of_the_channels_are_gated_position_by_position() -> None:
    module = random(PartialSpatialAttention(6))
    assert isinstance(module, PartialSpatialAttention)
    features = torch.randn(2, 6, 3, 2, dtype=torch.float64)
    logits = torch.einsum("bcij,c->bij", features[:, :3], module.gate.weight[0, :, 0, 0])
    gate = ((logits + 3) / 6).clamp(0, 1)
    expected = torch.cat(
        [
            module.gated_norm(features[:, :3] * gate[:, None]),
            module.linear(module.norm(features[:, 3:])),
        ],
        dim=1,
    )
    torch.testing.assert_close(module(features), expected)
    operator = operator_of(module, features)
    torch.testing.assert_close(operator.dense(), torch.diag_embed(gate.flatten(1)[:, None]))


def test_buckets_grow_by_one_to_20_then_with_the_logarithm_to_160() -> None:
    row = distance_buckets(1, 201)[0]
    assert row[:21].tolist() == list(range(40, 61))
    assert row[40].item() == 40 + round(20 + 20 * math.log(2) / math.log(8))
    assert row[160].item() == row[200].item() == 80
    assert bool((row.diff() >= 0).all())


@pytest.mark.parametrize(
    "module",
    [
        PartialChannelAttention(4),
        PartialSelfAttention(4, 1),
        PartialSpatialAttention(2),
        PATNetBlock(4, PATNetVariant(width=4, depths=(1,), activation=nn.GELU, heads=1), last=True),
    ],
)
def test_gradients_are_those_of_finite_differences(module: nn.Module) -> None:
    module = random(module)
    width = 2 if isinstance(module, PartialSpatialAttention) else 4
    features = torch.randn(2, width, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (features,))


@pytest.mark.parametrize(
    ("variant", "released", "spatial"),
    [
        ("t0", 3_486_160, 3_558_240),
        ("t1", 6_144_552, 6_144_552),
        ("t2", 12_269_816, 12_650_424),
        ("s", 28_013_304, 28_975_704),
        ("m", 59_179_000, 61_366_776),
        ("l", 100_641_336, 104_465_336),
    ],
)
def test_published_sizes(variant: str, released: int, spatial: int) -> None:
    sizes = PATNET_VARIANTS[variant]
    with torch.device("meta"):
        networks = [PATNet(sizes), PATNet(sizes.with_spatial())]
    counts = [sum(parameter.numel() for parameter in net.parameters()) for net in networks]
    assert counts == [released, spatial]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_trains(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = PATNet(TINY, classes=3, features=16).to(dtype)
    logits = network(torch.randn(2, 3, 48, 32, dtype=dtype))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PATNet(TINY, classes=3, features=16)
    trace = assert_capture_keeps_the_contract(
        network, {"pixel_values": torch.randn(1, 3, 32, 48)}, tmp_path
    )
    channels = trace.attention["stages.0.partial.mixing", 0]
    assert (channels.shape, channels.query_axis) == ((1, 6, 6), "channel")
    assert trace.attention["stages.0.spatial.mixing", 0].shape == (1, 96, 96)
    assert trace.attention["stages.2.partial.mixing", 1].stochastic


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="4 heads do not divide 6 of 8 channels"):
        PartialSelfAttention(8, 4)
    with pytest.raises(ValueError, match="at least two"):
        PartialChannelAttention(4)(torch.ones(1, 4, 1, 1))
