"""A network of strip self-attention in the form of S2AFormer, in our reading and of our size.

A stem of three 3 x 3 convolutions, the first of stride 2; four stages at strides 4, 8, 16 and 32,
each a patch embedding (3 x 3 of stride 2) and its hybrid perception blocks; the mean of the
normalized features; a linear head.

Reference: arXiv:2505.22195, of which the order of stages is known from a review. Its table of sizes
could not be read: widths, depths, heads and reductions are ours, like those of other four-stage
networks, and so is the number of parameters.
"""

from collections.abc import Sequence

from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.strip import HybridPerceptionBlock

__all__ = ["StripNetwork"]


class StripNetwork(nn.Module):
    """A four-stage network of hybrid perception blocks. Our reading, not a reproduction.

    Args:
        channels: Width of each stage.
        depths: Blocks of each stage.
        heads: Heads of each stage.
        reductions: Side of a pooled patch, by stage.
        classes: Number of classes.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     network = StripNetwork()
        >>> sum(parameter.numel() for parameter in network.parameters())
        4883540
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (1, 2, 4, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        first = channels[0] // 2
        self.stem = nn.Sequential(*_step(3, first, 2), *_step(first, first), *_step(first, first))
        self.embeddings = nn.ModuleList(
            nn.Sequential(*_step(narrow, wide, 2))
            for narrow, wide in zip((first, *channels[:-1]), channels, strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(HybridPerceptionBlock(width, count, size) for _ in range(depth)))
            for width, count, size, depth in zip(channels, heads, reductions, depths, strict=True)
        )
        self.norm = nn.LayerNorm(channels[-1])
        self.classifier = nn.Linear(channels[-1], classes)
        self.apply(_initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 row column"]
    ) -> Float[Tensor, "batch label"]:
        """Return the logits of the classes."""
        features = self.stem(pixel_values)
        for embedding, stage in zip(self.embeddings, self.stages, strict=True):
            features = stage(embedding(features))
        means = reduce(features, "batch channel row column -> batch channel", "mean")
        return self.classifier(self.norm(means))


def _step(narrow: int, wide: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(wide), nn.GELU()


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
