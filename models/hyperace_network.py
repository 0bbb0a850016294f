"""HyperACE and FullPAD (YOLOv13): correlations across scales, and their way through a detector.

    HyperACE(P3, P4, P5): average-pool P3, repeat P5, concatenate, 1x1  ->  X at the scale of P4
        1x1 to three parts y0, y1, y2
        b1, b2 = two hypergraph branches (C3AH) on y1;  m1 .. mn = DSC3k blocks in turn on y2
        1x1 of [y0, b1, y2, m1 .. mn, b2]
    FullPAD: each feature gets gamma times the enhanced map at its own scale, gamma starting at 0

Cost O(N M D) for N tokens and M hyperedges.

Reference: Lei et al. 2025, arXiv:2506.17733. The insides of DSC3k (two bottlenecks of half the
width, each a 3 x 3 and a 7 x 7 separable convolution around a shortcut) are our reading: they give
the 273,536 parameters of YOLOv13-N's HyperACE. How FullPAD changes scale and width (repetition,
average pooling, a 1x1 where widths differ) is our reading, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

from attnscope.models.hyperace import HypergraphConvolution

__all__ = [
    "VARIANTS",
    "ConvolutionNorm",
    "FullPAD",
    "FullPADTunnel",
    "HyperACE",
    "HyperACEShape",
    "HypergraphBranch",
    "SeparableBlock",
    "SeparableConvolution",
]

_HEAD_DIM = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperACEShape:
    """The sizes of one member of the family.

    Attributes:
        channels: Channels of the three scales, fine to coarse.
        width: Channels of the enhanced map.
        hyperedges: Hyperedges of each branch.
        blocks: Low-order blocks.
    """

    channels: tuple[int, int, int]
    width: int
    hyperedges: int
    blocks: int


VARIANTS = {
    "n": HyperACEShape(channels=(128, 128, 256), width=128, hyperedges=4, blocks=1),
    "s": HyperACEShape(channels=(256, 256, 512), width=256, hyperedges=8, blocks=1),
    "l": HyperACEShape(channels=(512, 512, 512), width=512, hyperedges=8, blocks=2),
    "x": HyperACEShape(channels=(768, 768, 768), width=768, hyperedges=12, blocks=2),
}
"""HyperACE of YOLOv13-N; S, L and X follow by the family's depth and width (our reading)."""


class ConvolutionNorm(nn.Module):
    """A convolution, batch normalization and SiLU."""

    def __init__(self, channels: int, returned: int, kernel: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, returned, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(returned)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch returned row column"]:
        """Return a map of the same grid."""
        return silu(self.norm(self.convolution(features)))


class SeparableConvolution(nn.Module):
    """A depthwise convolution, then a 1x1 with normalization and SiLU."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False
        )
        self.pointwise = ConvolutionNorm(channels, channels)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return a map of the same shape."""
        return self.pointwise(self.depthwise(features))


class SeparableBlock(nn.Module):
    """The low-order block DSC3k: separable bottlenecks on one half, the other half beside them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.inward, self.beside = ConvolutionNorm(channels, half), ConvolutionNorm(channels, half)
        self.bottlenecks = nn.ModuleList(
            nn.Sequential(SeparableConvolution(half, 3), SeparableConvolution(half, 7))
            for _ in range(2)
        )
        self.outward = ConvolutionNorm(2 * half, channels)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return a map of the same shape."""
        inner = self.inward(features)
        for bottleneck in self.bottlenecks:
            inner = inner + bottleneck(inner)
        return self.outward(torch.cat([inner, self.beside(features)], dim=1))


class HypergraphBranch(nn.Module):
    """The high-order block C3AH: a hypergraph computation, and the plain features beside it."""

    def __init__(self, channels: int, hyperedges: int) -> None:
        super().__init__()
        self.inward = ConvolutionNorm(channels, channels)
        self.beside = ConvolutionNorm(channels, channels)
        self.hypergraph = HypergraphConvolution(channels, hyperedges, channels // _HEAD_DIM)
        self.outward = ConvolutionNorm(2 * channels, channels)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return a map of the same shape."""
        related = self.hypergraph(self.inward(features))
        return self.outward(torch.cat([related, self.beside(features)], dim=1))


class HyperACE(nn.Module):
    """Correlations of high and low order across three scales, at the middle one.

    Args:
        shape: Its sizes, such as `VARIANTS["n"]`.

    Example:
        >>> with torch.device("meta"):
        ...     enhance = HyperACE(VARIANTS["n"])
        >>> sum(parameter.numel() for parameter in enhance.parameters())
        273536
    """

    def __init__(self, shape: HyperACEShape) -> None:
        super().__init__()
        part = shape.width // 2
        self.fuse = ConvolutionNorm(sum(shape.channels), shape.channels[1])
        self.split = ConvolutionNorm(shape.channels[1], 3 * part)
        self.branches = nn.ModuleList(HypergraphBranch(part, shape.hyperedges) for _ in range(2))
        self.blocks = nn.ModuleList(SeparableBlock(part) for _ in range(shape.blocks))
        self.join = ConvolutionNorm((4 + shape.blocks) * part, shape.width)

    def forward(
        self,
        fine: Float[Tensor, "batch fine_channel fine_row fine_column"],
        middle: Float[Tensor, "batch channel row column"],
        coarse: Float[Tensor, "batch coarse_channel coarse_row coarse_column"],
    ) -> Float[Tensor, "batch width row column"]:
        """Return the enhanced map at the scale of `middle`.

        Args:
            fine: P3, of twice as many rows and columns as `middle`.
            middle: P4.
            coarse: P5, of half as many.
        """
        scales = [avg_pool2d(fine, 2), middle, interpolate(coarse, scale_factor=2)]
        features = self.fuse(torch.cat(scales, dim=1))
        kept, related, local = self.split(features).chunk(3, dim=1)
        high = [branch(related) for branch in self.branches]
        low = [local]
        for block in self.blocks:
            low.append(block(low[-1]))
        return self.join(torch.cat([kept, high[0], *low, high[1]], dim=1))


class FullPADTunnel(nn.Module):
    """Adds an enhanced map to features, times a learned number that starts at 0.

    Example:
        >>> FullPADTunnel()(torch.ones(1), torch.tensor([7.0])).tolist()
        [1.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(
        self, features: Float[Tensor, "*shape"], enhanced: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Return `features + gamma enhanced`."""
        return features + self.gamma * enhanced


class FullPAD(nn.Module):
    """Carries an enhanced map to the three scales of one place of a detector.

    A detector has three such places: backbone to neck, inside the neck, neck to head.

    Args:
        width: Channels of the enhanced map.
        channels: Channels of the features, fine to coarse.
    """

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.adjust = nn.ModuleList(
            nn.Identity() if own == width else ConvolutionNorm(width, own) for own in channels
        )
        self.tunnels = nn.ModuleList(FullPADTunnel() for _ in channels)

    def forward(
        self,
        features: Sequence[Float[Tensor, "batch _channel _row _column"]],
        enhanced: Float[Tensor, "batch width row column"],
    ) -> list[Float[Tensor, "batch _channel _row _column"]]:
        """Return the features of three scales, fine to coarse, each with its share.

        Raises:
            ValueError: There are other than three scales.
        """
        if len(features) != 3:
            raise ValueError(f"{len(features)} scales were given; it takes fine, middle and coarse")
        scales = [interpolate(enhanced, scale_factor=2), enhanced, avg_pool2d(enhanced, 2)]
        steps = zip(self.tunnels, features, self.adjust, scales, strict=True)
        return [tunnel(feature, adjust(scale)) for tunnel, feature, adjust, scale in steps]
