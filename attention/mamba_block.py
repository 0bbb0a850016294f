"""The whole of a Mamba block as one map per channel: gate, scan, activation and convolution."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from attnscope.attention.algebra import ProductAttention
from attnscope.attention.convolution import ConvolutionAttention
from attnscope.attention.gate import GateAttention
from attnscope.attention.scan import ScanAttention

__all__ = ["scan_block"]


def scan_block(
    scan: ScanAttention,
    gate: Float[Tensor, "*batch head position"],
    before: Float[Tensor, "*batch head position"],
    kernel: Float[Tensor, "head window"],
) -> ProductAttention:
    """Return `diag(SiLU(gate)) scan diag(sigmoid(before)) M`, what a block does to its projection.

    `M` is the causal convolution by `kernel`, `before` its result with its bias, which the scan
    reads through SiLU: `SiLU(v) = sigmoid(v) v`. The map holds for the input that `before`, `gate`
    and the scan were computed from; the bias goes through the first three factors alone. A gate
    says nothing of an order, so the product does not call itself causal, though it looks back only.

    Args:
        scan: The hidden attention with its skip, one head per channel.
        gate: The branch that multiplies the scan's output, before its SiLU.
        before: What the convolution gave, before its SiLU.
        kernel: The convolution's weights; the last one falls on the position itself.

    Reference:
        Zimerman et al. 2024, arXiv:2405.16504 (which leaves out the skip and the bias).

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 2, 1)
        >>> hold = ScanAttention(ones, ones, torch.ones(1, 2), torch.zeros(1, 1))  # running sums
        >>> block = scan_block(hold, torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 1))
        >>> block.dense().abs().sum().item()  # a gate of SiLU(0) lets nothing through
        0.0
    """
    static = kernel.expand(*scan.shape[:-3], *kernel.shape)
    return ProductAttention(
        [
            GateAttention(silu(gate), query_axis=scan.query_axis, key_axis=scan.key_axis),
            scan,
            GateAttention(before.sigmoid(), query_axis=scan.query_axis, key_axis=scan.key_axis),
            ConvolutionAttention(
                static,
                [scan.keys],
                causal=True,
                query_axis=scan.query_axis,
                key_axis=scan.key_axis,
            ),
        ]
    )
