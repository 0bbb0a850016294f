"""Efficient local attention against its formula entry by entry."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.attention import GateAttention
from attnscope.models.efficient_local import ELA_VARIANTS, EfficientLocalAttention, ELAVariant
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = ELAVariant(kernel=3, group_width=2, norm_groups=2)


class Classifier(nn.Module):
    """A picture, two layers of gates, and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EfficientLocalAttention(4, TINY) for _ in range(2))

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = pixel_values.repeat(1, 4, 1, 1)
        for block in self.blocks:
            features = block(features)
        return features.mean((-2, -1))


def strip_gate(strip: nn.Sequential, means: Tensor) -> Tensor:
    """Return the gate of one item along one direction, sum by sum: `means` is (channel, place)."""
    convolution, norm = strip
    assert isinstance(convolution, nn.Conv1d)
    assert isinstance(norm, nn.GroupNorm)
    channels, places = means.shape
    width, reach = convolution.weight.shape[1], convolution.weight.shape[2] // 2
    mixed = torch.zeros_like(means)
    for channel in range(channels):
        first = channel // width * width
        for place in range(places):
            for slot in range(width):
                for step in range(-reach, reach + 1):
                    if 0 <= place + step < places:
                        weight = convolution.weight[channel, slot, step + reach]
                        mixed[channel, place] += weight * means[first + slot, place + step]
    for group in torch.arange(channels).chunk(norm.num_groups):
        spread = (mixed[group].var(unbiased=False) + norm.eps).sqrt()
        mixed[group] = (mixed[group] - mixed[group].mean()) / spread
    return (mixed * norm.weight[:, None] + norm.bias[:, None]).sigmoid()


def test_the_hand_case() -> None:
    module = EfficientLocalAttention(1, ELAVariant(kernel=3, group_width=1, norm_groups=1))
    convolution, norm = module.along_rows
    assert isinstance(convolution, nn.Conv1d)
    assert isinstance(norm, nn.GroupNorm)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([[[0.0, 1.0, 0.0]]]))
    norm.eps = 1e-12
    image = torch.tensor([[[[0.0, 0.0], [2.0, 2.0]]]])
    with torch.no_grad():
        rows, columns = module.gates(image)
        assert rows.flatten().tolist() == pytest.approx([0.2689, 0.7311], abs=1e-4)
        assert columns.flatten().tolist() == [0.5, 0.5]
        assert module(image).flatten().tolist() == pytest.approx([0, 0, 0.7311, 0.7311], abs=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_the_module_is_its_formula(shared: bool) -> None:
    torch.manual_seed(0)
    module = EfficientLocalAttention(4, TINY, shared=shared).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        for item, found in zip(features, module(features), strict=True):
            rows = strip_gate(module.along_rows, item.mean(2))
            columns = strip_gate(module.along_columns, item.mean(1))
            torch.testing.assert_close(found, item * rows[:, :, None] * columns[:, None, :])


def test_the_captured_gate_has_rank_one_per_channel() -> None:
    torch.manual_seed(0)
    module, features = EfficientLocalAttention(4, TINY).double(), torch.randn(2, 4, 5, 3).double()
    seen: list[GateAttention] = []
    module.mixing.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    module(features)
    rows, columns = module.gates(features)
    expected = rows[..., :, None] * columns[..., None, :]
    torch.testing.assert_close(seen[0].gate, expected.flatten(2))
    torch.testing.assert_close(seen[0].dense(), torch.diag_embed(expected.flatten(2)))
    assert not seen[0].signed


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = EfficientLocalAttention(4, TINY, shared=False).double()
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (features,))


@pytest.mark.parametrize(
    ("variant", "factor"), [("tiny", 7), ("base", 9), ("small", 42), ("large", 58)]
)
def test_published_sizes(variant: str, factor: int) -> None:
    for shared, times in ((True, 1), (False, 2)):
        module = EfficientLocalAttention(64, ELA_VARIANTS[variant], shared=shared)
        count = sum(parameter.numel() for parameter in module.parameters())
        assert count == times * factor * 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_trains(dtype: torch.dtype) -> None:
    module = EfficientLocalAttention(32, ELA_VARIANTS["tiny"]).to(dtype)
    module(torch.randn(2, 32, 6, 5, dtype=dtype)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trace = assert_capture_keeps_the_contract(
        Classifier(), {"pixel_values": torch.randn(1, 1, 4, 6)}, tmp_path
    )
    assert trace.observations[0].attention.shape == (4, 24, 24)
    assert trace.observations[0].queries.segments.runs[0].grid == (4, 6)


def test_channels_that_groups_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="48 channels are no multiple of norm_groups, 32"):
        EfficientLocalAttention(48, ELA_VARIANTS["tiny"])
    with pytest.raises(ValueError, match="20 channels are no multiple of group_width, 8"):
        EfficientLocalAttention(20, ELA_VARIANTS["large"])
