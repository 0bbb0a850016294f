"""PATNet: four stages of partial attention, three that gate channels and one that mixes positions.

Patches of 4 x 4 and a batch norm; merging by 2 x 2 convolutions that double the width; the mean
over positions, a linear map to 1280 features, an activation, a linear head. The blocks are

    stages 1 to 3   x = x + MLP(PAT_ch(x))
    stage 4         x = x + PAT_sf(x);   x = x + MLP(x)
    MLP             1x1 to twice the width, BN, activation, 1x1, and PAT_sp where it is on

Reference: Huang et al. 2025, arXiv:2503.03148; sizes and layers are those of the released code of
the sister paper, arXiv:2502.01303. Its settings switch PAT_sp on in T1 alone; which setting the
published table has is not known, so `with_spatial` gives the other. Stochastic depth, which only
trains, is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.partial import (
    PartialChannelAttention,
    PartialSelfAttention,
    PartialSpatialAttention,
)

__all__ = ["PATNET_VARIANTS", "PATNet", "PATNetBlock", "PATNetVariant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PATNetVariant:
    """The sizes of one network.

    Attributes:
        width: Channels of the first stage; each later one has twice as many.
        depths: Blocks of each stage.
        activation: The non-linearity.
        spatial: Whether every MLP ends with PAT_sp.
        heads: Heads of PAT_sf.
    """

    width: int
    depths: tuple[int, ...]
    activation: type[nn.Module] = nn.ReLU
    spatial: bool = False
    heads: int = 4

    def with_spatial(self) -> "PATNetVariant":
        """Return the same sizes with PAT_sp in every block."""
        return replace(self, spatial=True)


PATNET_VARIANTS: Mapping[str, PATNetVariant] = MappingProxyType(
    {
        "t0": PATNetVariant(width=32, depths=(1, 2, 8, 2), activation=nn.GELU),
        "t1": PATNetVariant(width=48, depths=(1, 2, 8, 2), activation=nn.GELU, spatial=True),
        "t2": PATNetVariant(width=64, depths=(2, 2, 6, 4)),
        "s": PATNetVariant(width=96, depths=(2, 2, 9, 4)),
        "m": PATNetVariant(width=128, depths=(2, 3, 16, 4)),
        "l": PATNetVariant(width=160, depths=(2, 3, 20, 4)),
    }
)
"""The released networks, as their settings have them."""


class PATNetBlock(nn.Module):
    """Partial attention and an MLP.

    Args:
        channels: Width.
        variant: What the blocks of the network have in common.
        last: Whether this is a block of the last stage.
    """

    def __init__(self, channels: int, variant: PATNetVariant, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.partial = (
            PartialSelfAttention(channels, variant.heads)
            if last
            else PartialChannelAttention(channels)
        )
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            variant.activation(),
            nn.Conv2d(2 * channels, channels, 1, bias=False),
        )
        self.spatial = PartialSpatialAttention(channels) if variant.spatial else nn.Identity()

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the features of the next block."""
        mixed = self.partial(features)
        if self.last:
            features = mixed = features + mixed
        return features + self.spatial(self.mlp(mixed))


class PATNet(nn.Module):
    """A classifier of images.

    Args:
        variant: The sizes; `PATNET_VARIANTS` has the released ones.
        classes: Number of classes.
        channels: Channels of the image.
        features: Width of what the head reads.
    """

    def __init__(
        self,
        variant: PATNetVariant,
        *,
        classes: int = 1000,
        channels: int = 3,
        features: int = 1280,
    ) -> None:
        super().__init__()
        widths = [variant.width * 2**stage for stage in range(len(variant.depths))]
        patches = [4] + [2] * (len(widths) - 1)
        self.embeddings = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, width, patch, stride=patch, bias=False), nn.BatchNorm2d(width)
            )
            for inputs, width, patch in zip([channels, *widths[:-1]], widths, patches, strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(PATNetBlock(width, variant, last=width == widths[-1]) for _ in range(depth))
            )
            for width, depth in zip(widths, variant.depths, strict=True)
        )
        self.features = nn.Sequential(
            nn.Linear(widths[-1], features, bias=False), variant.activation()
        )
        self.head = nn.Linear(features, classes)
        self.apply(_initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of the classes; rows and columns of at least 32 pixels."""
        features = pixel_values
        for embedding, stage in zip(self.embeddings, self.stages, strict=True):
            features = stage(embedding(features))
        pooled = reduce(features, "batch channel row column -> batch channel", "mean")
        return self.head(self.features(pooled))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
