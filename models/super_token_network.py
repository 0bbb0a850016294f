"""SViT / STViT: the network of super token attention, in its three published sizes.

Stem (four 3 x 3 convolutions to a quarter of the size), four stages of blocks with a merging
convolution between them, a 1 x 1 convolution to 1024 channels, the mean, a linear head. A block is

    x = x + DW3x3(x);  x = x + g1 STA(LN(x));  x = x + g2 FFN(BN(x))

with FFN = 1 x 1, GELU, (id + DW3x3), 1 x 1 and layer scales g in stages 3 and 4 of base and large.

Reference: Huang et al. 2023, arXiv:2211.11167; sizes and layers are those of the released code.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.super_token import SuperTokenAttention

__all__ = ["VARIANTS", "SViT", "svit"]

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "small": {
        "channels": (64, 128, 320, 512),
        "depths": (3, 5, 9, 3),
        "heads": (1, 2, 5, 8),
        "layer_scale": None,
    },
    "base": {
        "channels": (96, 192, 384, 512),
        "depths": (4, 6, 14, 6),
        "heads": (2, 3, 6, 8),
        "layer_scale": 1e-6,
    },
    "large": {
        "channels": (96, 192, 448, 640),
        "depths": (4, 7, 19, 8),
        "heads": (2, 3, 7, 10),
        "layer_scale": 1e-6,
    },
}


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the map, each pixel's channels normalized."""
        return self.norm(features.movedim(1, -1)).movedim(-1, 1)


class ResidualDepthwise(nn.Module):
    """`x + DW3x3(x)`, which tells pixels where they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the map plus its own convolution."""
        return features + self.convolution(features)


class SViTBlock(nn.Module):
    """Depthwise position, super token attention and MLP, each a residual branch."""

    def __init__(
        self, channels: int, heads: int, cell: int, *, layer_scale: float | None = None
    ) -> None:
        super().__init__()
        self.position = ResidualDepthwise(channels)
        self.attention_norm = ChannelNorm(channels)
        self.attention = SuperTokenAttention(channels, heads, cell)
        self.mlp_norm = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1),
            nn.GELU(),
            ResidualDepthwise(4 * channels),
            nn.Conv2d(4 * channels, channels, 1),
        )
        self.scales: nn.Parameter | tuple[float, float] = (1.0, 1.0)
        if layer_scale is not None:
            self.scales = nn.Parameter(torch.full((2, channels, 1, 1), layer_scale))

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the next features, of the same shape."""
        features = self.position(features)
        features = features + self.scales[0] * self.attention(self.attention_norm(features))
        return features + self.scales[1] * self.mlp(self.mlp_norm(features))


class SViT(nn.Module):
    """The network of super token attention.

    Args:
        channels: Width of each stage.
        depths: Blocks of each stage.
        heads: Heads of each stage.
        cells: Side of a super token's cell at the start, by stage; 1 is plain attention.
        layer_scale: Initial factor of the residual branches from stage 3 on; None for none.
        classes: Number of classes.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        cells: Sequence[int] = (8, 4, 1, 1),
        layer_scale: float | None = None,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        scales = [None, None, *(layer_scale for _ in depths[2:])]
        sizes = zip(channels, depths, heads, cells, scales[: len(depths)], strict=True)
        self.stem = _stem(channels[0])
        self.stages = nn.ModuleList(
            nn.Sequential(*(SViTBlock(width, count, cell, layer_scale=scale) for _ in range(depth)))
            for width, depth, count, cell, scale in sizes
        )
        self.merges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide))
            for narrow, wide in pairwise(channels)
        )
        self.features = nn.Sequential(
            nn.Conv2d(channels[-1], 1024, 1), nn.BatchNorm2d(1024), nn.SiLU()
        )
        self.classifier = nn.Linear(1024, classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 row column"]
    ) -> Float[Tensor, "batch label"]:
        """Return the logits of the classes."""
        features = self.stages[0](self.stem(pixel_values))
        for merge, stage in zip(self.merges, self.stages[1:], strict=True):
            features = stage(merge(features))
        means = reduce(self.features(features), "batch channel row column -> batch channel", "mean")
        return self.classifier(means)


def svit(variant: str, classes: int = 1000) -> SViT:
    """Return a published size with new weights: small, base or large.

    Raises:
        ValueError: There is no such size.

    Example:
        >>> with torch.device("meta"):
        ...     network = svit("small")
        >>> sum(parameter.numel() for parameter in network.parameters())
        25495624
    """
    if variant not in VARIANTS:
        raise ValueError(f"there is no SViT {variant!r}; there are {', '.join(VARIANTS)}")
    return SViT(**VARIANTS[variant], classes=classes)


def _stem(width: int) -> nn.Sequential:
    steps = ((3, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 2))
    layers: list[nn.Module] = []
    for channels, wider, stride in (*steps, (width, width, 1)):
        convolution = nn.Conv2d(channels, wider, 3, stride=stride, padding=1)
        layers += [convolution, nn.GELU(), nn.BatchNorm2d(wider)]
    return nn.Sequential(*layers)
