"""NAT and DiNAT: vision transformers of four levels of (dilated) neighborhood attention.

Two 3x3 convolutions of stride 2 make patches of 4x4 pixels; between levels a 3x3 convolution of
stride 2 halves the grid and doubles the channels. A layer is

    x += g1 * attention(LN x)        x += g2 * MLP(LN x)

with windows of 7x7, relative positions, and learned scales g (from 1e-5) where they were published.
The mean patch is classified. DiNAT dilates every second layer as far as its grid at 224 pixels
allows. Images have to give every level a grid of at least window times dilation. Stochastic depth
belongs to the published training recipe, not to the mechanism, and is left out.

Reference: Hassani et al. 2022, arXiv:2204.07143 (NAT); Hassani and Shi 2022, arXiv:2209.15001
(DiNAT), and the authors' code: NAT has scales in the small and the base size, DiNAT in the base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.neighborhood import NeighborhoodAttention

__all__ = ["DINAT_VARIANTS", "NAT_VARIANTS", "NatShape", "NeighborhoodTransformer", "dinat", "nat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NatShape:
    """The sizes of a network.

    Attributes:
        channels: Width of a patch in the first level; it doubles from level to level.
        depths: Layers in each level.
        heads: Heads in the first level; they double, too.
        expansion: Width of the MLP in widths of a patch.
        window: Rows and columns of a neighborhood.
        dilations: In each level, the dilation of every second layer (the others have 1).
        layer_scale: Where the scales of a layer's two branches start; None: there are none.
        classes: Number of classes.
    """

    channels: int
    depths: Sequence[int]
    heads: int
    expansion: int
    window: int = 7
    dilations: Sequence[int] = (1, 1, 1, 1)
    layer_scale: float | None = None
    classes: int = 1000


NAT_VARIANTS: Mapping[str, NatShape] = MappingProxyType(
    {
        "mini": NatShape(channels=64, depths=(3, 4, 6, 5), heads=2, expansion=3),
        "tiny": NatShape(channels=64, depths=(3, 4, 18, 5), heads=2, expansion=3),
        "small": NatShape(
            channels=96, depths=(3, 4, 18, 5), heads=3, expansion=2, layer_scale=1e-5
        ),
        "base": NatShape(
            channels=128, depths=(3, 4, 18, 5), heads=4, expansion=2, layer_scale=1e-5
        ),
    }
)
"""The published sizes of NAT."""

DINAT_VARIANTS: Mapping[str, NatShape] = MappingProxyType(
    {
        name: replace(
            shape,
            dilations=(8, 4, 2, 1),
            layer_scale=shape.layer_scale if name == "base" else None,
        )
        for name, shape in NAT_VARIANTS.items()
    }
)
"""The published sizes of DiNAT."""


class NeighborhoodLayer(nn.Module):
    """Neighborhood attention and an MLP, each behind a layer norm and beside a shortcut."""

    def __init__(self, shape: NatShape, level: int, dilation: int) -> None:
        super().__init__()
        channels = shape.channels * 2**level
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = NeighborhoodAttention(
            channels,
            shape.heads * 2**level,
            shape.window,
            dilation=dilation,
            relative_axes=2,
        )
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels * shape.expansion),
            nn.GELU(),
            nn.Linear(channels * shape.expansion, channels),
        )
        self.scales = None
        if shape.layer_scale is not None:
            self.scales = nn.Parameter(torch.full((2, channels), shape.layer_scale))

    def forward(
        self, features: Float[Tensor, "batch row column channel"]
    ) -> Float[Tensor, "batch row column channel"]:
        """Return the patches of the next layer."""
        first, second = (1.0, 1.0) if self.scales is None else self.scales
        features = features + first * self.attention(self.attention_norm(features))
        return features + second * self.mlp(self.mlp_norm(features))


class Halving(nn.Module):
    """A 3x3 convolution of stride 2 and a layer norm, on channels-last maps."""

    def __init__(self, before: int, after: int, *, bias: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=bias)

    def forward(
        self, features: Float[Tensor, "batch row column channel"]
    ) -> Float[Tensor, "batch half_row half_column wide"]:
        """Return a map of half as many rows and columns."""
        image = rearrange(features, "batch row column channel -> batch channel row column")
        return rearrange(
            self.convolution(image), "batch channel row column -> batch row column channel"
        )


class NeighborhoodTransformer(nn.Module):
    """NAT, or DiNAT where its shape has dilations.

    Args:
        shape: The sizes of the network.
    """

    def __init__(self, shape: NatShape) -> None:
        super().__init__()
        wide = [shape.channels * 2**level for level in range(len(shape.depths))]
        self.stem = nn.Sequential(
            Halving(3, wide[0] // 2, bias=True),
            Halving(wide[0] // 2, wide[0], bias=True),
            nn.LayerNorm(wide[0]),
        )
        self.merges = nn.ModuleList(
            nn.Sequential(Halving(width, 2 * width, bias=False), nn.LayerNorm(2 * width))
            for width in wide[:-1]
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                NeighborhoodLayer(shape, level, shape.dilations[level] if layer % 2 else 1)
                for layer in range(depth)
            )
            for level, depth in enumerate(shape.depths)
        )
        self.norm = nn.LayerNorm(wide[-1])
        self.head = nn.Linear(wide[-1], shape.classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self, pixel_values: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of each class.

        Raises:
            ValueError: The image gives some level a grid that is smaller than its dilated window.
        """
        image = rearrange(pixel_values, "batch channel row column -> batch row column channel")
        features = self.stem(image)
        for level, layers in enumerate(self.stages):
            if level > 0:
                features = self.merges[level - 1](features)
            for layer in layers:  # pyright: ignore[reportGeneralTypeIssues] - a ModuleList
                features = layer(features)
        patches = self.norm(features)
        return self.head(reduce(patches, "batch row column channel -> batch channel", "mean"))


def nat(variant: str) -> NeighborhoodTransformer:
    """Return a NAT of a published size: mini, tiny, small or base.

    Raises:
        ValueError: There is no such size.

    Example:
        >>> with torch.device("meta"):
        ...     sum(parameter.numel() for parameter in nat("mini").parameters())
        19984174
    """
    return NeighborhoodTransformer(_published(variant, NAT_VARIANTS))


def dinat(variant: str) -> NeighborhoodTransformer:
    """Return a DiNAT of a published size: mini, tiny, small or base.

    Raises:
        ValueError: There is no such size.
    """
    return NeighborhoodTransformer(_published(variant, DINAT_VARIANTS))


def _published(variant: str, variants: Mapping[str, NatShape]) -> NatShape:
    if variant not in variants:
        raise ValueError(f"there is no size {variant!r}; there are {list(variants)}")
    return variants[variant]
