"""Large kernel attention (VAN): a gate that three convolutions make of 23 x 23 neighbors.

    gate = Conv1x1(DW7x7 dilated by 3 (DW5x5(x)));   LKA(x) = gate * x
    attention(x) = x + Conv1x1(LKA(GELU(Conv1x1(x))))

Cost O(N C (25 + 49 + C)) for N positions of width C. A large kernel of side K with dilation d is
cut into a depthwise one of side 2d - 1, a dilated depthwise one of side ceil(K / d) and a linear
map; K = 21, d = 3 give 5 and 7, whose composed support has side 5 + 6 * 3 = 23. The gate has no
sigmoid and no softmax: any sign, any size, and no map from position to position. What there is of
one is static, the kernel through which a gate depends on the neighbors: `support_kernel`.

Reference: Guo et al. 2022, arXiv:2202.09741; the details are those of the released code.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import GateAttention, Mixing

__all__ = ["LargeKernelAttention", "LargeKernelGate", "support_kernel"]


class LargeKernelGate(nn.Module):
    """LKA: each channel of each position times a gate made of its neighborhood.

    Args:
        channels: Width, and number of gates per position.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.far = nn.Conv2d(channels, channels, 7, padding=9, dilation=3, groups=channels)
        self.across = nn.Conv2d(channels, channels, 1)
        self.mixing = Mixing()

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the gated features."""
        grid = (features.shape[-2], features.shape[-1])
        gate = self.across(self.far(self.near(features)))
        attention = GateAttention(
            rearrange(gate, "batch channel row column -> batch channel (row column)"),
            query_axis="patch",
            key_axis="patch",
        )
        values = rearrange(features, "batch channel row column -> batch channel (row column) 1")
        return rearrange(
            self.mixing(attention, values, grid=grid),
            "batch channel (row column) 1 -> batch channel row column",
            row=grid[0],
        )


class LargeKernelAttention(nn.Module):
    """The attention module of VAN: LKA between two linear maps, beside a shortcut of its own.

    Args:
        channels: Width.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(channels, channels, 1)
        self.gate = LargeKernelGate(channels)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the features and what was gated of them."""
        gated = self.gate(nn.functional.gelu(self.input(features)))
        return features + self.output(gated)


def support_kernel(gate: LargeKernelGate) -> Float[Tensor, "channel down right"]:
    """Return the 23 x 23 weights with which each input channel enters the gates around a position.

    Away from the border, `gate_o(t) = sum_i w_oi sum_s support_i[s] x_i(t + s)` plus a constant,
    with `w` the weights of the map across channels. (Within 9 positions of the border the dilated
    kernel reads zeros, where the composed one would go on with what the first kernel makes of the
    image's rim.) `ConvolutionAttention(support_kernel(gate), grid)` is the same as an operator.

    Example:
        >>> gate = LargeKernelGate(1)
        >>> for part in (gate.near, gate.far):
        ...     _ = torch.nn.init.ones_(part.weight)
        >>> kernel = support_kernel(gate)[0]  # of two boxes: how many ways lead to each neighbor
        >>> kernel.shape[0], kernel[0, :4].tolist(), float(kernel[11, 11])
        (23, [1.0, 1.0, 1.0, 2.0], 1.0)
    """
    near = rearrange(gate.near.weight.detach(), "channel 1 down right -> 1 channel down right")
    composed = torch.nn.functional.conv_transpose2d(
        near, gate.far.weight.detach(), dilation=3, groups=near.shape[1]
    )
    return rearrange(composed, "1 channel down right -> channel down right")
