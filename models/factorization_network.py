"""FaViT: the network of factorization self-attention, in its four published sizes.

Overlapping patch embeddings (7 x 7 of stride 4, then 3 x 3 of stride 2), four stages of

    x = x + FaSA(LN(x));  x = x + MLP(LN(x)),   MLP = Linear, DW3x3, GELU, Linear

a layer norm after each stage, the mean of the tokens, a linear head.

Reference: Qin et al. 2023, arXiv:2312.08614; sizes and layers are those of the released code.
"""

from collections.abc import Iterable, Mapping, Sequence

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.factorization import FactorizedAttention, Pool, initialize, released_pool

__all__ = ["VARIANTS", "FaViT", "favit"]

VARIANTS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "b0": {"channels": (32, 64, 128, 256), "depths": (2, 2, 6, 2)},
    "b1": {"channels": (64, 128, 256, 512), "depths": (2, 2, 6, 2)},
    "b2": {"channels": (64, 128, 256, 512), "depths": (2, 3, 18, 3)},
    "b3": {"channels": (96, 192, 384, 768), "depths": (2, 3, 14, 3)},
}

HEADS = (1, 2, 4, 8)
"""Heads of each stage."""

RATIOS = (8, 6, 4, 4)
"""Hidden channels of each stage's MLPs, as multiples of its width."""


class PatchEmbedding(nn.Module):
    """Overlapping patches: a convolution of stride 2 or 4, and a layer norm."""

    def __init__(self, narrow: int, wide: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(narrow, wide, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(wide)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> tuple[Float[Tensor, "batch token wide"], tuple[int, int]]:
        """Return the tokens, in raster order, and their rows and columns."""
        patches = self.convolution(features)
        tokens = rearrange(patches, "batch channel row column -> batch (row column) channel")
        return self.norm(tokens), (patches.shape[-2], patches.shape[-1])


class ConvolutionalMLP(nn.Module):
    """`Linear(GELU(DW3x3(Linear(x))))`."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, hidden)
        self.convolution = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = nn.Linear(hidden, channels)

    def forward(
        self, features: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the next tokens of a map of `grid` rows and columns."""
        image = rearrange(
            self.widen(features),
            "batch (row column) channel -> batch channel row column",
            row=grid[0],
        )
        hidden = nn.functional.gelu(self.convolution(image))
        return self.narrow(
            rearrange(hidden, "batch channel row column -> batch (row column) channel")
        )


class FaViTBlock(nn.Module):
    """Attention and MLP, each behind a layer norm and a residual connection."""

    def __init__(
        self, channels: int, heads: int, reduction: int, *, ratio: int, pool: Pool
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attention = FactorizedAttention(channels, heads, reduction, pool=pool)
        self.mlp_norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = ConvolutionalMLP(channels, ratio * channels)

    def forward(
        self, features: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the tokens of the next block."""
        features = features + self.attention(self.attention_norm(features), grid)
        return features + self.mlp(self.mlp_norm(features), grid)


class FaViTStage(nn.Module):
    """Patch embedding, blocks, layer norm: a smaller, wider map of another.

    Args:
        embedding: Makes tokens of a map.
        blocks: The blocks.
    """

    def __init__(self, embedding: PatchEmbedding, blocks: Iterable[FaViTBlock]) -> None:
        super().__init__()
        self.embedding, self.blocks = embedding, nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(embedding.convolution.out_channels, eps=1e-6)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch wide down right"]:
        """Return the next map."""
        tokens, grid = self.embedding(features)
        for block in self.blocks:
            tokens = block(tokens, grid)
        return rearrange(
            self.norm(tokens), "batch (row column) channel -> batch channel row column", row=grid[0]
        )


class FaViT(nn.Module):
    """The network of factorization self-attention.

    Args:
        channels: Width of each stage.
        depths: Blocks of each stage.
        reductions: Side of a pooled patch, by stage.
        classes: Number of classes.
        pool: How slots are averaged over windows.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        depths: Sequence[int],
        reductions: Sequence[int] = (8, 4, 2, 1),
        classes: int = 1000,
        pool: Pool = released_pool,
    ) -> None:
        super().__init__()
        sizes = zip((3, *channels[:-1]), channels, depths, reductions, strict=True)
        self.stages = nn.Sequential(
            *(
                FaViTStage(
                    PatchEmbedding(
                        narrow, wide, kernel=3 if stage else 7, stride=2 if stage else 4
                    ),
                    (
                        FaViTBlock(wide, HEADS[stage], reduction, ratio=RATIOS[stage], pool=pool)
                        for _ in range(depth)
                    ),
                )
                for stage, (narrow, wide, depth, reduction) in enumerate(sizes)
            )
        )
        self.classifier = nn.Linear(channels[-1], classes)
        self.apply(initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 row column"]
    ) -> Float[Tensor, "batch label"]:
        """Return the logits of the classes.

        Raises:
            ValueError: The image is too small for the windows of some stage.
        """
        features = self.stages(pixel_values)
        return self.classifier(
            reduce(features, "batch channel row column -> batch channel", "mean")
        )


def favit(variant: str, classes: int = 1000, *, pool: Pool = released_pool) -> FaViT:
    """Return a published size with new weights: b0, b1, b2 or b3.

    Raises:
        ValueError: There is no such size.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     network = favit("b0")
        >>> sum(parameter.numel() for parameter in network.parameters())
        3427704
    """
    if variant not in VARIANTS:
        raise ValueError(f"there is no FaViT {variant!r}; there are {', '.join(VARIANTS)}")
    return FaViT(**VARIANTS[variant], classes=classes, pool=pool)
