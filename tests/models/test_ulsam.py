"""ULSAM against the released order of steps, subspace by subspace."""

import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.attention import GateAttention
from attnscope.models.ulsam import SubspaceAttention, spatial_distribution
from tests.models.capturing import assert_capture_keeps_the_contract


class Classifier(nn.Module):
    """A picture, two layers of subspaces, and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SubspaceAttention(6, 3) for _ in range(2))

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = pixel_values.repeat(1, 2, 1, 1)
        for block in self.blocks:
            features = block(features)
        return features.mean((-2, -1))


def gate_of(module: SubspaceAttention, features: Tensor) -> GateAttention:
    seen: list[GateAttention] = []
    handle = module.mixing.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    module(features)
    handle.remove()
    return seen[0]


def subspace(module: SubspaceAttention, number: int) -> nn.Sequential:
    """Return one subspace alone, in the order of the released code, with its share of weights."""
    count = module.pointwise.out_channels
    width = module.channelwise.out_channels // count
    alone = nn.Sequential(
        OrderedDict(
            channelwise=nn.Conv2d(width, width, 1, groups=width),
            channel_norm=nn.BatchNorm2d(width),
            channel_bend=nn.ReLU(),
            pool=nn.MaxPool2d(3, stride=1, padding=1),
            pointwise=nn.Conv2d(width, 1, 1),
            map_norm=nn.BatchNorm2d(1),
            map_bend=nn.ReLU(),
        )
    )
    shares = {
        name: tensor.chunk(count)[number]
        for name, tensor in module.state_dict().items()
        if tensor.ndim
    }
    alone.load_state_dict(shares, strict=False)  # all but the norms' counters
    return alone.double().eval()


def maps_by_subspace(module: SubspaceAttention, features: Tensor) -> Tensor:
    """Return each subspace's map, made of its own channels."""
    count = module.pointwise.out_channels
    maps = [
        subspace(module, number)(group).flatten(1).softmax(-1)
        for number, group in enumerate(features.chunk(count, dim=1))
    ]
    return torch.stack(maps, dim=1)


def trained(module: SubspaceAttention) -> SubspaceAttention:
    """Give every number of a module a value of its own."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.ndim:
            tensor.normal_()
    return module.double().eval()


def test_the_hand_case() -> None:
    module = SubspaceAttention(1, 1).eval()
    for name, tensor in module.state_dict().items():
        if name in ("channelwise.weight", "pointwise.weight"):
            tensor.fill_(1)
        elif name in ("channelwise.bias", "pointwise.bias"):
            tensor.fill_(0)
    for norm in (module.channel_norm, module.map_norm):
        norm.eps = 0.0
    image = torch.tensor([0.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 4)
    share = math.e / (2 + 2 * math.e)  # pooled to (0, 0, 1, 1)
    assert gate_of(module, image).gate[0, 0].tolist() == pytest.approx(
        [0.5 - share, 0.5 - share, share, share]
    )
    assert module(image).flatten().tolist() == pytest.approx([0.0, 0.0, 0.0, 1.36553], abs=1e-5)


def test_the_maps_are_those_of_the_subspaces_one_by_one() -> None:
    module = trained(SubspaceAttention(6, 2))
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    maps = maps_by_subspace(module, features)
    torch.testing.assert_close(gate_of(module, features).gate, maps)
    gated = (1 + maps).repeat_interleave(3, dim=1).reshape(features.shape) * features
    torch.testing.assert_close(module(features), gated)  # diag(1 + A_n)


def test_a_map_is_a_distribution_over_positions_that_a_gate_is_not() -> None:
    module = trained(SubspaceAttention(4, 2))
    gate = gate_of(module, torch.randn(2, 4, 3, 3, dtype=torch.float64))
    row = spatial_distribution(gate)
    assert row.stochastic
    assert row.shape == (2, 2, 1, 9)
    assert (row.query_axis, row.key_axis) == ("probe", "patch")
    logs = gate.gate * gate.gate.log()
    torch.testing.assert_close(row.entropy().squeeze(-1), -logs.sum(-1))
    torch.testing.assert_close(row.column_mass(), gate.gate)
    assert not gate.stochastic
    assert gate.dense().shape == (2, 2, 9, 9)


def test_gradients_are_those_of_finite_differences() -> None:
    module = trained(SubspaceAttention(2, 1))
    features = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (features,))


@pytest.mark.parametrize(
    ("channels", "subspaces", "count"), [(64, 4, 332), (512, 4, 2572), (512, 1, 2563), (8, 2, 46)]
)
def test_published_sizes(channels: int, subspaces: int, count: int) -> None:
    module = SubspaceAttention(channels, subspaces)
    assert sum(parameter.numel() for parameter in module.parameters()) == count
    assert count == 5 * channels + 3 * subspaces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_trains(dtype: torch.dtype) -> None:
    module = SubspaceAttention(6, 3).to(dtype)
    module(torch.randn(2, 6, 5, 4, dtype=dtype)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert module.channel_norm.momentum == module.map_norm.momentum == 0.9


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trace = assert_capture_keeps_the_contract(
        Classifier(), {"pixel_values": torch.randn(1, 3, 4, 6)}, tmp_path
    )
    assert trace.observations[0].attention.shape == (3, 24, 24)
    stored = trace.attention[1]
    assert isinstance(stored, GateAttention)
    assert spatial_distribution(stored).stochastic


def test_channels_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="8 channels cannot be cut into 3 equal subspaces"):
        SubspaceAttention(8, 3)
