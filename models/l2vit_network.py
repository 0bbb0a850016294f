"""L2ViT: windows and linear global attention in turns, four stages of halving grids.

Stem: two 3x3 convolutions of stride 2, each with batch norm. A stage's even blocks are local, its
odd ones global; LN is layer norm, CPE a depthwise 3x3 convolution added to its input:

    local:   x = CPE(x);  x += LWA(LN x);  x = CPE(x);  x += MLP(LN x)
    global:  x = CPE(x);  x += LGA(LN x);  x += LCM(LN x);  x += MLP(LN x)

The mean patch is classified. Reference: Zheng 2025, arXiv:2501.16182, and the authors' code.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from attnscope.models.l2vit import LinearAttention, LocalConcentration, WindowAttention

__all__ = ["L2VIT_VARIANTS", "L2ViT", "l2vit"]

L2VIT_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"channels": (96, 192, 384, 768), "heads": (3, 6, 12, 24), "depths": (2, 2, 6, 2)},
    "small": {"channels": (96, 192, 384, 768), "heads": (3, 6, 12, 24), "depths": (2, 2, 18, 2)},
    "base": {"channels": (128, 256, 512, 1024), "heads": (4, 8, 16, 32), "depths": (2, 2, 18, 2)},
}


class PositionEncoding(nn.Module):
    """Conditional position encoding: a depthwise 3x3 convolution, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(
        self, features: Float[Tensor, "batch patch channel"], grid: Sequence[int]
    ) -> Float[Tensor, "batch patch channel"]:
        """Return the patches of a grid with what tells them where they are."""
        return features + _patches(self.convolution(_map(features, grid)))


class LocalBlock(nn.Module):
    """Window attention and MLP, each behind a position encoding and a layer norm."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.attention_position = PositionEncoding(channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.window_attention = WindowAttention(channels, heads, window)
        self.mlp_position = PositionEncoding(channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = _mlp(channels)

    def forward(
        self, features: Float[Tensor, "batch patch channel"], grid: Sequence[int]
    ) -> Float[Tensor, "batch patch channel"]:
        """Return the patches of the next block."""
        features = self.attention_position(features, grid)
        features = features + self.window_attention(self.attention_norm(features), grid)
        features = self.mlp_position(features, grid)
        return features + self.mlp(self.mlp_norm(features))


class GlobalBlock(nn.Module):
    """Linear attention, local concentration and MLP, each behind a layer norm."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.position = PositionEncoding(channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.linear_attention = LinearAttention(channels, heads)
        self.concentration_norm = nn.LayerNorm(channels)
        self.concentration = LocalConcentration(channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = _mlp(channels)

    def forward(
        self, features: Float[Tensor, "batch patch channel"], grid: Sequence[int]
    ) -> Float[Tensor, "batch patch channel"]:
        """Return the patches of the next block."""
        features = self.position(features, grid)
        features = features + self.linear_attention(self.attention_norm(features), grid)
        local = self.concentration(_map(self.concentration_norm(features), grid))
        features = features + _patches(local)
        return features + self.mlp(self.mlp_norm(features))


class L2ViT(nn.Module):
    """A vision transformer of windows and linear global attention.

    Args:
        channels: Width of a patch in each stage.
        heads: Heads in each stage.
        depths: Blocks in each stage.
        window: Rows and columns of a window of the local blocks; 12 was published for 384 pixels.
        classes: Number of classes.
    """

    def __init__(
        self,
        channels: Sequence[int],
        heads: Sequence[int],
        depths: Sequence[int],
        *,
        window: int = 7,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = _stem(channels[0])
        self.stem_norm = nn.LayerNorm(channels[0])
        self.merge_norms = nn.ModuleList(nn.LayerNorm(narrow) for narrow in channels[:-1])
        self.merges = nn.ModuleList(
            nn.Conv2d(narrow, wide, 2, stride=2) for narrow, wide in pairwise(channels)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                GlobalBlock(width, count) if number % 2 else LocalBlock(width, count, window)
                for number in range(depth)
            )
            for width, count, depth in zip(channels, heads, depths, strict=True)
        )
        self.norm = nn.LayerNorm(channels[-1])
        self.classifier = nn.Linear(channels[-1], classes)
        self.apply(_initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 row column"]
    ) -> Float[Tensor, "batch label"]:
        """Return the logits of the classes; any image size is padded to whole patches."""
        image = self.stem(_padded(pixel_values, 4))
        features, grid = self.stem_norm(_patches(image)), image.shape[-2:]
        for number, stage in enumerate(self.stages):
            if number:
                merged = _padded(_map(self.merge_norms[number - 1](features), grid), 2)
                merged = self.merges[number - 1](merged)
                features, grid = _patches(merged), merged.shape[-2:]
            for block in stage.children():
                features = block(features, grid)
        mean = reduce(self.norm(features), "batch patch channel -> batch channel", "mean")
        return self.classifier(mean)


def l2vit(variant: str, *, window: int = 7, classes: int = 1000) -> L2ViT:
    """Return a published size (tiny, small or base) with new weights.

    Raises:
        ValueError: There is no such size.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     network = l2vit("tiny")
        >>> sum(parameter.numel() for parameter in network.parameters())
        28596781
    """
    if variant not in L2VIT_VARIANTS:
        raise ValueError(f"there is no L2ViT {variant!r}; there are {', '.join(L2VIT_VARIANTS)}")
    return L2ViT(**L2VIT_VARIANTS[variant], window=window, classes=classes)


def _stem(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, channels // 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
        nn.BatchNorm2d(channels),
    )


def _mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
    )


def _map(features: Tensor, grid: Sequence[int]) -> Tensor:
    return rearrange(
        features, "batch (row column) channel -> batch channel row column", row=grid[0]
    )


def _patches(image: Tensor) -> Tensor:
    return rearrange(image, "batch channel row column -> batch (row column) channel")


def _padded(image: Tensor, multiple: int) -> Tensor:
    rows, columns = image.shape[-2:]
    return pad(image, (0, -columns % multiple, 0, -rows % multiple))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
