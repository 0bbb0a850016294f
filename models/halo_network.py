"""HaloNet H0 to H7: a residual network whose 3 x 3 convolutions are halo attention.

    block: 1x1 to the stage's width, halo attention, 1x1 to `block_width` times the width,
           each with batch normalization, and the shortcut
    stages of 3, 3, L, 3 blocks at widths 64, 128, 256, 512; the last three halve the map

Reference: Vaswani et al. 2021, arXiv:2103.12731, as a registry built on timm has its table. That
table's activation (ReLU) and the place of the normalizations are timm's; the paper's own parameter
table was not found, the sizes here equal timm's to the last parameter for H0 to H4.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from attnscope.models.halo import HaloAttention, HaloBlocks

__all__ = ["VARIANTS", "HaloBottleneck", "HaloNet", "HaloNetShape"]

_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class HaloNetShape:
    """One member of the family.

    Attributes:
        block: Side of a block.
        halo: Width of the halo.
        value_width: Channels of the values, by the stage's width.
        block_width: Channels that a block returns, by the stage's width.
        depth: Blocks of the third stage.
        final_width: Channels of the last 1x1 convolution; None for no such convolution.
    """

    block: int = 8
    halo: int = 3
    value_width: float = 1.0
    block_width: float
    depth: int
    final_width: int | None = None


VARIANTS = {
    "h0": HaloNetShape(block_width=0.5, depth=7),
    "h1": HaloNetShape(block_width=1.0, depth=10),
    "h2": HaloNetShape(block_width=1.25, depth=11),
    "h3": HaloNetShape(block=10, block_width=1.5, depth=12, final_width=1024),
    "h4": HaloNetShape(block=12, halo=2, block_width=3.0, depth=12, final_width=1280),
    "h5": HaloNetShape(
        block=14, halo=2, value_width=2.5, block_width=2.0, depth=23, final_width=1536
    ),
    "h6": HaloNetShape(halo=4, value_width=3.0, block_width=2.75, depth=24, final_width=1536),
    "h7": HaloNetShape(block=10, value_width=4.0, block_width=3.5, depth=26, final_width=2048),
}
"""The published family."""


def _normalized(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))


class HaloBottleneck(nn.Module):
    """A residual block around halo attention.

    Args:
        channels: Channels of the features.
        width: Channels of queries and keys.
        shape: The member of the family.
        stride: 2 where the block halves the map.
    """

    def __init__(self, channels: int, width: int, shape: HaloNetShape, stride: int = 1) -> None:
        super().__init__()
        values, returned = int(width * shape.value_width), int(width * shape.block_width)
        blocks = HaloBlocks(size=shape.block, halo=shape.halo, stride=stride)
        self.reduce = _normalized(nn.Conv2d(channels, width, 1, bias=False))
        self.attention = HaloAttention(width, values, blocks)
        self.norm = nn.BatchNorm2d(values)
        self.expand = _normalized(nn.Conv2d(values, returned, 1, bias=False))
        self.shortcut = nn.Identity()
        if stride > 1 or channels != returned:
            self.shortcut = _normalized(nn.Conv2d(channels, returned, 1, stride, bias=False))

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch returned some_row some_column"]:
        """Return the shortcut plus what attention adds."""
        read = relu(self.norm(self.attention(relu(self.reduce(features)))))
        return relu(self.shortcut(features) + self.expand(read))


class HaloNet(nn.Module):
    """HaloNet, from pixels to logits.

    Args:
        shape: The member of the family, such as `VARIANTS["h1"]`.
        classes: Number of classes.

    Example:
        >>> with torch.device("meta"):
        ...     network = HaloNet(VARIANTS["h1"])
        >>> sum(parameter.numel() for parameter in network.parameters())
        8100056
    """

    def __init__(self, shape: HaloNetShape, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _normalized(nn.Conv2d(3, 64, 7, 2, 3, bias=False)),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        stages, channels = [], 64
        for number, width in enumerate(_WIDTHS):
            blocks = []
            for place in range(shape.depth if number == 2 else 3):
                stride = 2 if number and not place else 1
                blocks.append(HaloBottleneck(channels, width, shape, stride))
                channels = int(width * shape.block_width)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.final = nn.Identity()
        if shape.final_width is not None:
            last = _normalized(nn.Conv2d(channels, shape.final_width, 1, bias=False))
            self.final = nn.Sequential(last, nn.ReLU())
            channels = shape.final_width
        self.head = nn.Linear(channels, classes)

    def forward(
        self, pixel_values: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch classes"]:
        """Return class logits.

        Raises:
            ValueError: A stage's map is not whole blocks.
        """
        features = self.stem(pixel_values)
        for stage in self.stages:
            features = stage(features)
        return self.head(torch.mean(self.final(features), dim=(-2, -1)))
