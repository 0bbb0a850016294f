"""Linear global attention, window attention and the local module of L2ViT.

Linear global attention (LGA), with `phi = ReLU`, `S_i = phi(q_i) . sum_j phi(k_j)` and a learned
temperature `t` per head:

    a_ij = t phi(q_i) . phi(k_j) / max(S_i, 100)

The floor of 100 keeps training stable; rows sum to `t min(1, S_i / 100)`, far below 1 at the start.
O(N dim) memory, O(N dim^2) time. Local window attention (LWA): softmax within windows of 7x7
patches, without shift and without position bias. Local concentration module (LCM): two depthwise
7x7 convolutions with GELU and batch norm between, 13x13 patches wide.

Reference: Zheng 2025, arXiv:2501.16182; the floor, the temperature's place and that padding takes
part in windows are those of the authors' code.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from attnscope.attention import KernelAttention, Mixing, SoftmaxAttention, WindowedAttention

__all__ = ["FLOOR", "LinearAttention", "LocalConcentration", "WindowAttention", "linear_operator"]

FLOOR = 100.0
"""Least sum by which a row of linear attention is divided."""


def linear_operator(
    query: Float[Tensor, "*batch head query dim"],
    key: Float[Tensor, "*batch head key dim"],
    temperature: Float[Tensor, " head"],
) -> KernelAttention:
    """Return `t phi(q_i) . phi(k_j) / max(S_i, 100)` of queries and keys before the ReLU.

    Example:
        >>> query, key = torch.tensor([[[2.0]]]), torch.tensor([[[3.0], [1.0], [-4.0]]])
        >>> A = linear_operator(query, key, torch.ones(1))  # S = 8
        >>> [round(weight, 4) for weight in A.dense().flatten().tolist()]
        [0.06, 0.02, 0.0]
    """
    query, key = query.relu(), key.relu()
    total = (query * key.sum(-2, keepdim=True)).sum(-1, keepdim=True)
    share = temperature[:, None, None] / total.clamp(min=FLOOR)
    return KernelAttention(
        query * share, key, normalize=False, query_axis="patch", key_axis="patch"
    )


class LinearAttention(nn.Module):
    """Linear global attention of patches.

    Args:
        channels: Width of a patch.
        heads: Number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.full((heads,), (channels // heads) ** -0.5))
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.mixing = Mixing()

    def forward(
        self, features: Float[Tensor, "batch patch channel"], grid: Sequence[int]
    ) -> Float[Tensor, "batch patch channel"]:
        """Return what the patches of a grid read of all patches, projected."""
        query, key, value = rearrange(
            self.query_key_value(features),
            "batch patch (factor head dim) -> factor batch head patch dim",
            factor=3,
            head=self.heads,
        )
        output = self.mixing(linear_operator(query, key, self.temperature), value, grid=grid)
        return self.projection(rearrange(output, "batch head patch dim -> batch patch (head dim)"))


class WindowAttention(nn.Module):
    """Softmax attention within windows of patches.

    A grid that is not of whole windows is padded with zeros on the right and below, before the
    projection: the padding has the biases as its query, key and value, and is attended to.

    Args:
        channels: Width of a patch.
        heads: Number of heads.
        window: Rows and columns of a window.
    """

    def __init__(self, channels: int, heads: int, window: int = 7) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.mixing = Mixing()

    def forward(
        self, features: Float[Tensor, "batch patch channel"], grid: Sequence[int]
    ) -> Float[Tensor, "batch patch channel"]:
        """Return what the patches of a grid read of their windows, projected."""
        rows, columns = grid
        padded = (rows + -rows % self.window, columns + -columns % self.window)
        features = rearrange(
            features, "batch (row column) channel -> batch row column channel", row=rows
        )
        features = pad(features, (0, 0, 0, padded[1] - columns, 0, padded[0] - rows))
        query, key, value = rearrange(
            self.query_key_value(features),
            "batch row column (factor head dim) -> factor batch head (row column) dim",
            factor=3,
            head=self.heads,
        )
        output = self.mixing(self._windows(query, key, padded), value, grid=padded)
        output = rearrange(
            output,
            "batch head (row column) dim -> batch row column (head dim)",
            row=padded[0],
        )
        kept = output[:, :rows, :columns]
        return self.projection(
            rearrange(kept, "batch row column channel -> batch (row column) channel")
        )

    def _windows(
        self,
        query: Float[Tensor, "batch head patch dim"],
        key: Float[Tensor, "batch head patch dim"],
        grid: tuple[int, int],
    ) -> WindowedAttention:
        patches = rearrange(
            torch.arange(grid[0] * grid[1], device=query.device),
            "(row down column right) -> (row column) (down right)",
            row=grid[0] // self.window,
            down=self.window,
            right=self.window,
        )
        inner = SoftmaxAttention(
            rearrange(
                query[:, :, patches], "batch head window slot dim -> batch window head slot dim"
            ),
            rearrange(
                key[:, :, patches], "batch head window slot dim -> batch window head slot dim"
            ),
            causal=False,
        )
        size = grid[0] * grid[1]
        return WindowedAttention(
            inner, patches, patches, size, size, query_axis="patch", key_axis="patch"
        )


class LocalConcentration(nn.Module):
    """Two depthwise 7x7 convolutions with GELU and batch norm between: a patch sees 13x13.

    The batch norm makes an image's output depend on the others in its batch while training.

    Args:
        channels: Width of a patch.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            nn.GELU(),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
        )

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the map, mixed among neighbors."""
        return self.layers(features)
