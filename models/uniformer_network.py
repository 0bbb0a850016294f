"""UniFormer for images: two stages of local blocks, two of global blocks, a quarter in size each.

The small and the base network embed patches without overlap (4 x 4, then 2 x 2) behind a layer
norm; the dagger network by overlapping 3 x 3 convolutions with batch norms. Then a batch norm, the
mean over positions and a linear head. Stochastic depth, which only trains, is left out.

Reference: Li et al. 2023, arXiv:2201.09450; sizes and layers are those of the released code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.uniformer import GlobalBlock, LocalBlock

__all__ = [
    "UNIFORMER_VARIANTS",
    "PatchEmbedding",
    "UniFormer",
    "UniFormerVariant",
    "initialize",
    "overlapping_stem",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UniFormerVariant:
    """The sizes of one network.

    Attributes:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        head_width: Channels of a head in the global stages.
        ratio: Width of an MLP's hidden layer, in widths.
        overlapping: Whether patches overlap.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (64, 128, 320, 512)
    head_width: int = 64
    ratio: int = 4
    overlapping: bool = False


UNIFORMER_VARIANTS: Mapping[str, UniFormerVariant] = MappingProxyType(
    {
        "small": UniFormerVariant(depths=(3, 4, 8, 3)),
        "small_dagger": UniFormerVariant(depths=(3, 5, 9, 3), overlapping=True),
        "small_dagger_32": UniFormerVariant(depths=(3, 5, 9, 3), overlapping=True, head_width=32),
        "base": UniFormerVariant(depths=(5, 8, 20, 7)),
    }
)
"""The published networks; the dagger was released with heads of 64 and, as another model, of 32."""


class PatchEmbedding(nn.Module):
    """Patches without overlap, each a token behind a layer norm."""

    def __init__(self, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(inputs, outputs, patch, stride=patch)
        self.norm = nn.LayerNorm(outputs)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch width down right"]:
        """Return one vector per patch."""
        patches = rearrange(
            self.projection(features), "batch channel row column -> batch row column channel"
        )
        return rearrange(self.norm(patches), "batch row column channel -> batch channel row column")


def overlapping_stem(inputs: int, outputs: int) -> nn.Sequential:
    """Return two convolutions of stride 2, to a quarter of the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs // 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(outputs // 2),
        nn.GELU(),
        nn.Conv2d(outputs // 2, outputs, 3, stride=2, padding=1),
        nn.BatchNorm2d(outputs),
    )


def initialize(module: nn.Module) -> None:
    """Start linear layers as published: truncated normal weights of 0.02, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class UniFormer(nn.Module):
    """A classifier of images.

    Args:
        variant: The sizes; `UNIFORMER_VARIANTS` has the published ones.
        classes: Number of classes.
        channels: Channels of the image.
    """

    def __init__(
        self, variant: UniFormerVariant, *, classes: int = 1000, channels: int = 3
    ) -> None:
        super().__init__()
        widths, ratio = variant.widths, variant.ratio
        stem, merging = (
            (overlapping_stem, _overlapping) if variant.overlapping else (_patches_of_4, _patches)
        )
        self.embeddings = nn.ModuleList([stem(channels, widths[0])])
        self.embeddings.extend(map(merging, widths, widths[1:]))
        local = [
            nn.Sequential(*(LocalBlock(width, ratio) for _ in range(depth)))
            for width, depth in zip(widths[:2], variant.depths[:2], strict=True)
        ]
        content = [
            nn.Sequential(
                *(GlobalBlock(width, width // variant.head_width, ratio) for _ in range(depth))
            )
            for width, depth in zip(widths[2:], variant.depths[2:], strict=True)
        ]
        self.stages = nn.ModuleList([*local, *content])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], classes)
        self.apply(initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of the classes; rows and columns of at least 32 pixels."""
        features = pixel_values
        for embedding, stage in zip(self.embeddings, self.stages, strict=True):
            features = stage(embedding(features))
        pooled = reduce(self.norm(features), "batch channel row column -> batch channel", "mean")
        return self.head(pooled)


def _patches_of_4(inputs: int, outputs: int) -> nn.Module:
    return PatchEmbedding(inputs, outputs, 4)


def _patches(inputs: int, outputs: int) -> nn.Module:
    return PatchEmbedding(inputs, outputs, 2)


def _overlapping(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs)
    )
