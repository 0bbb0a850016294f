"""UniFormer against convolutions and softmax attention written out, and the published sizes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from attnscope.attention import ConvolutionAttention
from attnscope.models.self_attention import SelfAttention
from attnscope.models.uniformer import GlobalBlock, LocalAttention, LocalBlock
from attnscope.models.uniformer_network import UNIFORMER_VARIANTS, UniFormer, UniFormerVariant
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = UniFormerVariant(depths=(1, 2, 2, 1), widths=(4, 4, 8, 8), head_width=4, ratio=2)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def identity(convolution: nn.Module) -> None:
    """Turn a 1 x 1 convolution into one that changes nothing."""
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(len(convolution.weight))[:, :, None, None])
        assert convolution.bias is not None
        convolution.bias.zero_()


def test_a_mean_over_the_window_is_nine_of_twenty_five_at_a_corner() -> None:
    local = LocalAttention(2)
    identity(local.value)
    identity(local.output)
    nn.init.constant_(local.affinity.weight, 1 / 25)
    assert local.affinity.bias is not None
    nn.init.zeros_(local.affinity.bias)
    mixed = local(torch.ones(1, 2, 5, 5))[0, 1].detach()
    assert float(mixed[0, 0]) == pytest.approx(9 / 25)
    assert float(mixed[2, 2]) == pytest.approx(1.0)


def test_local_attention_is_a_depthwise_convolution_between_linear_maps() -> None:
    torch.manual_seed(0)
    local, features = LocalAttention(3).double(), torch.randn(2, 3, 6, 4, dtype=torch.float64)
    mixed = torch.nn.functional.conv2d(
        local.value(features), local.affinity.weight, local.affinity.bias, padding=2, groups=3
    )
    torch.testing.assert_close(local(features), local.output(mixed))


def test_one_map_of_all_local_heads_is_the_mean_size_of_their_kernels() -> None:
    kernel = torch.tensor([[[1.0]], [[-3.0]]])
    shown = ConvolutionAttention(kernel.abs().mean(0, keepdim=True), (2, 1))
    assert shown.dense().tolist() == [[[2.0, 0.0], [0.0, 2.0]]]


@pytest.mark.parametrize("block", [LocalBlock(2, 1), GlobalBlock(2, 1, 1)])
def test_gradients_are_those_of_finite_differences(block: nn.Module) -> None:
    torch.manual_seed(0)
    block = block.double().eval()
    features = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (features,))


def test_published_sizes_of_blocks() -> None:
    assert parameters(LocalBlock(8)) == 1_016
    assert parameters(GlobalBlock(64, 1)) == 50_624


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("small", 21_545_256),
        ("small_dagger", 24_032_552),
        ("small_dagger_32", 24_032_552),
        ("base", 49_776_552),
    ],
)
def test_published_sizes(variant: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(UniFormer(UNIFORMER_VARIANTS[variant])) == count


def test_the_two_daggers_differ_in_their_heads() -> None:
    with torch.device("meta"):
        heads = [
            [module.heads for module in network.modules() if isinstance(module, SelfAttention)]
            for network in (
                UniFormer(UNIFORMER_VARIANTS["small_dagger"]),
                UniFormer(UNIFORMER_VARIANTS["small_dagger_32"]),
            )
        ]
    assert heads == [[5] * 9 + [8] * 3, [10] * 9 + [16] * 3]


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_trains(overlapping: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    variant = UniFormerVariant(
        depths=(1, 1, 1, 1), widths=(4, 4, 8, 8), head_width=4, overlapping=overlapping
    )
    network = UniFormer(variant, classes=3).to(dtype)
    logits = network(torch.randn(2, 3, 64, 32, dtype=dtype))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UniFormer(TINY, classes=3)
    trace = assert_capture_keeps_the_contract(
        network, {"pixel_values": torch.randn(1, 3, 64, 64)}, tmp_path
    )
    first, last = trace.observations[0], trace.observations[-1]
    assert isinstance(first.attention, ConvolutionAttention)
    assert first.attention.shape == (4, 256, 256)
    assert first.queries.segments.runs[0].grid == (16, 16)
    assert last.attention.stochastic
    assert last.attention.shape == (2, 4, 4)
