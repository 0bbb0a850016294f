"""Large kernel attention against plain convolutions, and the published sizes of VAN."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu

from attnscope.attention import ConvolutionAttention, GateAttention
from attnscope.models.large_kernel import LargeKernelAttention, LargeKernelGate, support_kernel
from attnscope.models.large_kernel_network import VAN, VAN_VARIANTS, VANBlock, VANVariant
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = VANVariant(depths=(1, 2), widths=(4, 6), ratios=(2, 1))


def without_bias(gate: LargeKernelGate) -> LargeKernelGate:
    for part in (gate.near, gate.far, gate.across):
        assert part.bias is not None
        nn.init.zeros_(part.bias)
    return gate


def gate_of(module: LargeKernelGate, features: Tensor) -> Tensor:
    """Return the gate by torch's convolutions alone."""
    channels = features.shape[1]
    near = conv2d(features, module.near.weight, module.near.bias, padding=2, groups=channels)
    far = conv2d(near, module.far.weight, module.far.bias, padding=9, dilation=3, groups=channels)
    return conv2d(far, module.across.weight, module.across.bias)


def test_an_impulse_opens_gates_at_49_points_and_passes_only_its_own() -> None:
    module = without_bias(LargeKernelGate(1))
    nn.init.zeros_(module.near.weight)
    with torch.no_grad():
        module.near.weight[0, 0, 2, 2] = 1.0
    nn.init.ones_(module.far.weight)
    nn.init.ones_(module.across.weight)
    image = torch.zeros(1, 1, 21, 21)
    image[0, 0, 10, 10] = 2.0
    seen: list[GateAttention] = []
    module.mixing.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    output = module(image)
    assert int((seen[0].gate != 0).sum()) == 49
    assert output.nonzero().tolist() == [[0, 0, 10, 10]]
    assert output[0, 0, 10, 10].item() == 4.0


def test_the_module_is_its_formula() -> None:
    torch.manual_seed(0)
    module = LargeKernelAttention(3).double()
    features = torch.randn(2, 3, 9, 5, dtype=torch.float64)
    inner = gelu(module.input(features))
    expected = features + module.output(gate_of(module.gate, inner) * inner)
    torch.testing.assert_close(module(features), expected)


def test_the_gate_is_captured_with_its_signs() -> None:
    torch.manual_seed(0)
    module, features = LargeKernelGate(3), torch.randn(2, 3, 4, 5)
    seen: list[GateAttention] = []
    module.mixing.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    module(features)
    torch.testing.assert_close(seen[0].gate, gate_of(module, features).flatten(2))
    assert seen[0].signed
    assert seen[0].query_axis == "patch"
    slow = torch.diag_embed(gate_of(module, features).flatten(2))
    torch.testing.assert_close(seen[0].dense(), slow)


def test_the_support_kernel_is_what_an_impulse_leaves_in_the_gates_around_it() -> None:
    torch.manual_seed(0)
    module = without_bias(LargeKernelGate(2)).double()
    image = torch.zeros(1, 2, 41, 41, dtype=torch.float64)
    image[0, 1, 20, 20] = 1.0
    support = support_kernel(module)
    assert support.shape == (2, 23, 23)
    weights = module.across.weight[:, 1, 0, 0]  # of channel 1 in every gate
    expected = weights[:, None, None] * support[1].flip(0, 1)  # the gate below sees it above
    torch.testing.assert_close(gate_of(module, image)[0, :, 9:32, 9:32], expected)
    static = ConvolutionAttention(support, (41, 41))
    read = static.apply(image.flatten(2).unsqueeze(-1)[0])
    across = torch.einsum("oi,ip->op", module.across.weight[:, :, 0, 0], read.squeeze(-1))
    torch.testing.assert_close(across, gate_of(module, image)[0].flatten(1))


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    block = VANBlock(2, 1).double().eval()
    features = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (features,))


def test_parameters_of_a_gate() -> None:
    count = sum(parameter.numel() for parameter in LargeKernelGate(8).parameters())
    assert count == 25 * 8 + 8 + 49 * 8 + 8 + 8**2 + 8


@pytest.mark.parametrize(
    ("variant", "count"),
    [("b0", 4_105_800), ("b1", 13_861_800), ("b2", 26_578_472), ("b3", 44_765_608)],
)
def test_published_sizes(variant: str, count: int) -> None:
    with torch.device("meta"):
        network = VAN(VAN_VARIANTS[variant])
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_trains(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = VAN(TINY, classes=3).to(dtype)
    logits = network(torch.randn(2, 3, 40, 32, dtype=dtype))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VAN(TINY, classes=3)
    trace = assert_capture_keeps_the_contract(
        network, {"pixel_values": torch.randn(1, 3, 32, 40)}, tmp_path
    )
    assert all(isinstance(seen.attention, GateAttention) for seen in trace.observations)
    assert [seen.attention.shape[0] for seen in trace.observations] == [4, 6, 6]
    assert trace.observations[0].queries.segments.runs[-1].grid == (8, 10)
