"""UniFormer XXS and XS: a class token joins at stage 3 and decides which patches are kept.

Stem of overlapping convolutions, patches of 2 x 2 between the stages; stages 1 and 2 of local
blocks, 3 and 4 of pruning blocks. The first of those keeps all patches and takes its scores from
the class token alone; later ones keep half and renew half of a score. Scores go to stage 4 as means
of 2 x 2, with their sum kept.

Reference: Li et al. 2023, arXiv:2201.09450; sizes and layers are those of the released code.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.uniformer import LocalBlock
from attnscope.models.uniformer_network import (
    PatchEmbedding,
    UniFormerVariant,
    initialize,
    overlapping_stem,
)
from attnscope.models.uniformer_pruning import PruningBlock, pooled_score

__all__ = ["UNIFORMER_LIGHT_VARIANTS", "PruningStage", "UniFormerLight"]

UNIFORMER_LIGHT_VARIANTS: Mapping[str, UniFormerVariant] = MappingProxyType(
    {
        "xxs": UniFormerVariant(
            depths=(2, 5, 8, 2), widths=(56, 112, 224, 448), head_width=28, ratio=3
        ),
        "xs": UniFormerVariant(
            depths=(3, 5, 9, 3), widths=(64, 128, 256, 512), head_width=32, ratio=3
        ),
    }
)
"""The published networks: an overlapping stem, patches without overlap between the stages."""


class PruningStage(nn.Module):
    """Pruning blocks of one width, which pass on the class token and the scores.

    Args:
        width: Channels.
        heads: Number of heads.
        ratio: Width of an MLP's hidden layer, in widths.
        shares: Of each block, the share of patches that is kept and of a score that is renewed.
    """

    def __init__(self, width: int, heads: int, ratio: int, shares: Sequence[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            PruningBlock(width, heads, ratio, keep=share, renewal=share) for share in shares
        )

    def forward(
        self,
        class_token: Float[Tensor, "batch 1 channel"],
        features: Float[Tensor, "batch channel row column"],
        score: Float[Tensor, "batch patch"],
    ) -> tuple[
        Float[Tensor, "batch 1 channel"],
        Float[Tensor, "batch channel row column"],
        Float[Tensor, "batch patch"],
    ]:
        """Return class token, features and scores after the last block."""
        for block in self.blocks:
            class_token, features, score = block(class_token, features, score)
        return class_token, features, score


class UniFormerLight(nn.Module):
    """A classifier of small images.

    Args:
        variant: The sizes; `UNIFORMER_LIGHT_VARIANTS` has the published ones.
        classes: Number of classes.
        channels: Channels of the image.
    """

    def __init__(
        self, variant: UniFormerVariant, *, classes: int = 1000, channels: int = 3
    ) -> None:
        super().__init__()
        widths, depths, ratio = variant.widths, variant.depths, variant.ratio
        heads = [width // variant.head_width for width in widths]
        self.embeddings = nn.ModuleList([overlapping_stem(channels, widths[0])])
        self.embeddings.extend(PatchEmbedding(*pair, 2) for pair in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(LocalBlock(width, ratio) for _ in range(depth)))
            for width, depth in zip(widths[:2], depths[:2], strict=True)
        )
        first, second = [1.0] + [0.5] * (depths[2] - 1), [0.5] * depths[3]
        self.stages.append(PruningStage(widths[2], heads[2], ratio, first))
        self.stages.append(PruningStage(widths[3], heads[3], ratio, second))
        self.class_token = nn.Parameter(torch.zeros(1, 1, widths[2]))
        self.class_projection = nn.Linear(widths[2], widths[3])
        self.norm, self.head = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)
        self.class_norm, self.class_head = nn.LayerNorm(widths[3]), nn.Linear(widths[3], classes)
        self.apply(initialize)

    def forward(
        self, pixel_values: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch class"]:
        """Return the logits from the mean over patches; rows and columns of at least 64 pixels."""
        return self.both_logits(pixel_values)[0]

    def both_logits(
        self, pixel_values: Float[Tensor, "batch channel row column"]
    ) -> tuple[Float[Tensor, "batch class"], Float[Tensor, "batch class"]]:
        """Return the logits from the patches and from the class token; training learns both."""
        features = pixel_values
        for embedding, stage in zip(self.embeddings[:2], self.stages[:2], strict=True):
            features = stage(embedding(features))
        features = self.embeddings[2](features)
        token = self.class_token.expand(len(features), -1, -1)
        score = torch.zeros_like(features[:, 0]).flatten(1)
        token, features, score = self.stages[2](token, features, score)
        score = pooled_score(score, (features.shape[-2], features.shape[-1]))
        token, features = self.class_projection(token), self.embeddings[3](features)
        token, features, _ = self.stages[3](token, features, score)
        pooled = reduce(self.norm(features), "batch channel row column -> batch channel", "mean")
        return self.head(pooled), self.class_head(self.class_norm(token[:, 0]))
