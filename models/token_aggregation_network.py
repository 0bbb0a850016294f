"""CATANet: the super-resolution network of token aggregation, for factors 1 to 4.

A 3 x 3 convolution, eight blocks x + Conv3x3(LRSA(TAB(x))), a skip around them, pixel shuffling
(twice by 2 for factor 4), a 3 x 3 convolution, and the bilinearly enlarged image added. Factor 1
restores an image at its own size.

Reference: Liu et al. 2025, arXiv:2503.06896; sizes and layers are those of the released code.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from attnscope.models.token_aggregation import TokenAggregation
from attnscope.models.token_aggregation_local import LocalAttention

__all__ = ["SHUFFLES", "CATANet"]

SHUFFLES: Mapping[int, Sequence[int]] = {1: (), 2: (2,), 3: (3,), 4: (2, 2)}
"""Factors of the pixel shuffles, one after the other, by the network's own factor."""


class CATANetBlock(nn.Module):
    """Token aggregation, local attention and a convolution within one residual branch."""

    def __init__(self, sizes: Sequence[int], *, centers: int, group: int, patch: int) -> None:
        super().__init__()
        channels, width, hidden, heads = sizes
        self.aggregation = TokenAggregation(
            channels, width, hidden, heads, centers=centers, group=group
        )
        self.local = LocalAttention(channels, width, hidden, heads, size=patch)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the next features, of the same shape."""
        return features + self.convolution(self.local(self.aggregation(features)))


class CATANet(nn.Module):
    """The super-resolution network of token aggregation.

    Args:
        factor: How much larger the image becomes: 1, 2, 3 or 4.
        sizes: Channels, channels of queries and keys, hidden channels of the MLPs, heads.
        centers: Token centers of each block.
        groups: Tokens of a sub-group, by block.
        patches: Side of a local patch, by block; an image has no side smaller than any of them.

    Raises:
        ValueError: There is no network of this factor.

    Example:
        >>> sum(parameter.numel() for parameter in CATANet(2).parameters())
        477435
    """

    def __init__(
        self,
        factor: int,
        *,
        sizes: Sequence[int] = (40, 36, 96, 4),
        centers: Sequence[int] = (16, 32, 64, 128) * 2,
        groups: Sequence[int] = (256, 128, 64, 32) * 2,
        patches: Sequence[int] = (16, 20, 24, 28) * 2,
    ) -> None:
        super().__init__()
        if factor not in SHUFFLES:
            raise ValueError(f"there is no CATANet of factor {factor}; there are {list(SHUFFLES)}")
        self.factor, channels = factor, sizes[0]
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(
            *(
                CATANetBlock(sizes, centers=count, group=group, patch=patch)
                for count, group, patch in zip(centers, groups, patches, strict=True)
            )
        )
        self.enlarge = nn.Sequential(
            *(layer for each in SHUFFLES[factor] for layer in _shuffle(channels, each))
        )
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        self.apply(_initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 row column"]
    ) -> Float[Tensor, "batch 3 larger_row larger_column"]:
        """Return the enlarged images.

        Raises:
            ValueError: The image is smaller than the largest patch.
        """
        features = self.first(pixel_values)
        features = self.enlarge(features + self.blocks(features))
        base = interpolate(
            pixel_values, scale_factor=float(self.factor), mode="bilinear", align_corners=False
        )
        return self.last(features) + base


def _shuffle(channels: int, factor: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, channels * factor**2, 3, padding=1)
    return convolution, nn.PixelShuffle(factor), nn.LeakyReLU(0.1)


def _initialize(module: nn.Module) -> None:
    # Convolutions keep the default of torch, as released.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
