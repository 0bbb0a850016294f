"""VAN: four stages of large kernel attention, each behind an overlapping patch embedding.

Embeddings are convolutions, 7 x 7 with stride 4, then 3 x 3 with stride 2, each before a batch
norm; a stage ends with a layer norm; the mean over positions and a linear head follow. A block is

    x = x + g1 attention(BN(x));   x = x + g2 FFN(BN(x)),   FFN = 1x1, DW3x3, GELU, 1x1

with learned scales g that start at 0.01. Stochastic depth, which only trains, is left out.

Reference: Guo et al. 2022, arXiv:2202.09741; sizes and layers are those of the released code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.large_kernel import LargeKernelAttention

__all__ = ["VAN", "VAN_VARIANTS", "VANBlock", "VANVariant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VANVariant:
    """The sizes of one network, stage by stage.

    Attributes:
        depths: Blocks.
        widths: Channels.
        ratios: Width of an MLP's hidden layer, in widths.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 320, 512)
    ratios: tuple[int, ...] = (8, 8, 4, 4)


VAN_VARIANTS: Mapping[str, VANVariant] = MappingProxyType(
    {
        "b0": VANVariant(depths=(3, 3, 5, 2), widths=(32, 64, 160, 256)),
        "b1": VANVariant(depths=(2, 2, 4, 2)),
        "b2": VANVariant(depths=(3, 3, 12, 3)),
        "b3": VANVariant(depths=(3, 5, 27, 3)),
    }
)


class VANBlock(nn.Module):
    """Attention and MLP, each behind a batch norm and times a learned scale.

    Args:
        channels: Width.
        ratio: Width of the MLP's hidden layer, in widths.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        hidden = ratio * channels
        self.attention_norm = nn.BatchNorm2d(channels)
        self.attention = LargeKernelAttention(channels)
        self.attention_scale = nn.Parameter(torch.full((channels, 1, 1), 0.01))
        self.mlp_norm = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )
        self.mlp_scale = nn.Parameter(torch.full((channels, 1, 1), 0.01))

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the features of the next block."""
        attended = self.attention(self.attention_norm(features))
        features = features + self.attention_scale * attended
        return features + self.mlp_scale * self.mlp(self.mlp_norm(features))


class VANStage(nn.Module):
    """An embedding, blocks and a layer norm."""

    def __init__(self, inputs: int, width: int, depth: int, ratio: int, *, patch: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(
            nn.Conv2d(inputs, width, patch, stride=(patch + 1) // 2, padding=patch // 2),
            nn.BatchNorm2d(width),
        )
        self.blocks = nn.Sequential(*(VANBlock(width, ratio) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch width down right"]:
        """Return the features of the next stage."""
        features = self.blocks(self.embedding(features))
        tokens = rearrange(features, "batch channel row column -> batch row column channel")
        return rearrange(self.norm(tokens), "batch row column channel -> batch channel row column")


class VAN(nn.Module):
    """A classifier of images.

    Args:
        variant: The sizes; `VAN_VARIANTS` has the published ones.
        classes: Number of classes.
        channels: Channels of the image.
    """

    def __init__(self, variant: VANVariant, *, classes: int = 1000, channels: int = 3) -> None:
        super().__init__()
        inputs, patches = (channels, *variant.widths[:-1]), (7, *(3 for _ in variant.widths[1:]))
        sizes = zip(inputs, variant.widths, variant.depths, variant.ratios, patches, strict=True)
        self.stages = nn.Sequential(*(VANStage(*numbers, patch=patch) for *numbers, patch in sizes))
        self.head = nn.Linear(variant.widths[-1], classes)
        self.apply(_initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of the classes."""
        features = self.stages(pixel_values)
        return self.head(reduce(features, "batch channel row column -> batch channel", "mean"))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.out_channels * module.weight[0, 0].numel() // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
