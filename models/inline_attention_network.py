"""InLine-DeiT: a vision transformer whose every attention is InLine attention.

Patches of 16x16, a class token, learned positions, 12 blocks of attention and MLP. The published
sizes are narrower than DeiT's and see larger images at about the same cost.

Reference: Han et al. 2024, arXiv:2412.06590; widths, heads and image sizes from the authors' code.
"""

from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.inline_attention import InLineAttention

__all__ = ["INLINE_DEIT_VARIANTS", "InLineDeit", "inline_deit"]

INLINE_DEIT_VARIANTS: Mapping[str, Mapping[str, int]] = {
    "tiny": {"image": 224, "channels": 192, "heads": 6},
    "small": {"image": 288, "channels": 320, "heads": 10},
    "base": {"image": 448, "channels": 384, "heads": 12},
}


class InLineBlock(nn.Module):
    """Attention and MLP, each behind a layer norm and a residual connection."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attention = InLineAttention(channels, heads)
        self.mlp_norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(
        self, features: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the tokens of the next block."""
        features = features + self.attention(self.attention_norm(features), grid)
        return features + self.mlp(self.mlp_norm(features))


class InLineDeit(nn.Module):
    """A vision transformer of InLine attention.

    Args:
        image: Rows and columns of the pixels.
        channels: Width of a token.
        heads: Heads of each attention.
        depth: Number of blocks.
        patch: Rows and columns of a patch.
        classes: Number of classes.
    """

    def __init__(
        self,
        *,
        image: int,
        channels: int,
        heads: int,
        depth: int = 12,
        patch: int = 16,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.grid = (image // patch, image // patch)
        self.patches = nn.Conv2d(3, channels, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (image // patch) ** 2, channels))
        self.blocks = nn.ModuleList(InLineBlock(channels, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.classifier = nn.Linear(channels, classes)
        self.apply(_initialize)
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 row column"]
    ) -> Float[Tensor, "batch label"]:
        """Return the logits of the classes.

        Raises:
            ValueError: The image is not of the size that the positions were made for.
        """
        patches = self.patches(pixel_values)
        if patches.shape[-2:] != self.grid:
            raise ValueError(
                f"pixel_values give {tuple(patches.shape[-2:])} patches; this network has learned "
                f"positions for {self.grid}"
            )
        patches = rearrange(patches, "batch channel row column -> batch (row column) channel")
        class_token = self.class_token.expand(len(patches), -1, -1)
        features = torch.cat([class_token, patches], dim=1) + self.positions
        for block in self.blocks:
            features = block(features, self.grid)
        return self.classifier(self.norm(features)[:, 0])


def inline_deit(variant: str, classes: int = 1000) -> InLineDeit:
    """Return a published size with new weights: tiny at 224, small at 288, base at 448 pixels.

    Raises:
        ValueError: There is no such size.

    Example:
        >>> with torch.device("meta"):
        ...     network = inline_deit("tiny")
        >>> sum(parameter.numel() for parameter in network.parameters())
        6477736
    """
    if variant not in INLINE_DEIT_VARIANTS:
        raise ValueError(
            f"there is no InLine-DeiT {variant!r}; there are {', '.join(INLINE_DEIT_VARIANTS)}"
        )
    return InLineDeit(**INLINE_DEIT_VARIANTS[variant], classes=classes)


def _initialize(module: nn.Module) -> None:
    # Convolutions keep the default of torch, as published.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
