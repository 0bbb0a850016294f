"""The classifier: one plain backbone, into which any mechanism fits.

    two 3 x 3 convolutions of stride 2, so that a patch is 4 x 4 pixels, + learned positions
    block:  x + mechanism(norm(x));  x + MLP(norm(x))
    mean over patches, linear

With self-attention it is a vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) without
class token. Nothing but the mechanism differs between the subjects.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.subjects.digits.images import CANVAS
from attnscope.models.subjects.digits.mechanisms import MECHANISMS

__all__ = ["DigitClassifier"]

_PATCH = 4
_CLASSES = 10
_GRID = (CANVAS // _PATCH, CANVAS // _PATCH)


class DigitClassifier(nn.Module):
    """Reads the one whole digit of a cluttered canvas.

    Args:
        mechanism: Name of what mixes patches, one of `MECHANISMS`.
        width: Width of the features.
        depth: Number of blocks.
        heads: Number of heads.

    Raises:
        ValueError: There is no such mechanism.
    """

    def __init__(
        self, mechanism: str = "softmax", width: int = 64, depth: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        if mechanism not in MECHANISMS:
            raise ValueError(f"no mechanism {mechanism!r}; there are {', '.join(MECHANISMS)}")
        self.mechanism = mechanism
        self.patches = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.positions = nn.Parameter(torch.zeros(1, _GRID[0] * _GRID[1], width))
        self.blocks = nn.ModuleList(_Block(mechanism, width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, _CLASSES)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(
        self, pixel_values: Float[Tensor, "batch 1 row column"]
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of the ten digits."""
        features = rearrange(
            self.patches(pixel_values), "batch width row column -> batch (row column) width"
        )
        features = features + self.positions
        for block in self.blocks:
            features = block(features)
        return self.classes(self.norm(features).mean(1))


class _Block(nn.Module):
    def __init__(self, mechanism: str, width: int, heads: int) -> None:
        super().__init__()
        self.mixing_norm = nn.LayerNorm(width)
        self.mechanism = MECHANISMS[mechanism](width, heads, _GRID)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, features: Float[Tensor, "batch patch width"]
    ) -> Float[Tensor, "batch patch width"]:
        """Return the features after mixing patches and after the MLP."""
        features = features + self.mechanism(self.mixing_norm(features))
        return features + self.mlp(self.mlp_norm(features))
