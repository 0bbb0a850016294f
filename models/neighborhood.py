"""Neighborhood attention (NA), dilated (DiNA) and generalized (GNA: strided, causal per axis).

    s_tj = q_t . k_j / sqrt(d) + B[j - t]   for the keys j in the neighborhood N(t) of query t
    A = softmax of s over N(t),     y = A V

N(t) holds the K positions per axis around t (see `neighborhood_index`); B is a learned table of
relative positions, counted in steps of the dilation, which NAT and DiNAT have and GNA has not.
Cost O(N prod(K) d) for N positions, against O(N^2 d).

On CUDA, and without B, the NATTEN package computes the output where it is installed.

Reference: Hassani et al. 2022, arXiv:2204.07143 (NA), Hassani and Shi 2022, arXiv:2209.15001
(DiNA), Hassani et al. 2025, arXiv:2504.16922 (GNA).
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import AttentionOperator, Mixing
from attnscope.models.neighborhood_fused import neighborhood_operator
from attnscope.models.neighborhood_index import Neighborhood
from attnscope.models.neighborhood_softmax import neighborhood_pattern

__all__ = ["NeighborhoodAttention"]


class NeighborhoodAttention(nn.Module):
    """Attention of each position of a grid to its neighborhood.

    Args:
        channels: Width of a position.
        heads: Number of heads.
        window: Keys per axis; a sequence has a number for each axis.
        stride: Queries that share a neighborhood, per axis.
        dilation: Distance of neighbors, per axis.
        causal: Whether keys lie behind their query, per axis.
        relative_axes: Axes of the grid for which there is a table of relative positions; 0: none.

    Example:
        >>> attention = NeighborhoodAttention(4, heads=1, window=3)
        >>> row = attention.attend(torch.zeros(1, 5, 5, 4)).rows([0]).detach().reshape(5, 5)
        >>> round(1 / float(row.max())), row[:3, :3].count_nonzero().item()  # pushed inwards
        (9, 9)
    """

    def __init__(  # noqa: PLR0913 - each argument changes the mathematics
        self,
        channels: int,
        heads: int,
        window: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        causal: bool | Sequence[bool] = False,
        relative_axes: int = 0,
    ) -> None:
        super().__init__()
        self.heads, self.rules = heads, (window, stride, dilation, causal)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.mixing = Mixing()
        self.relative_position = None
        if relative_axes:
            windows = (window,) * relative_axes if isinstance(window, int) else window
            self.relative_position = nn.Parameter(
                torch.empty(heads, *(2 * size - 1 for size in windows))
            )
            nn.init.trunc_normal_(self.relative_position, std=0.02)
        for layer in (self.query_key_value, self.projection):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def attend(self, features: Float[Tensor, "batch *grid channel"]) -> AttentionOperator:
        """Return the attention that the positions of a grid have to each other.

        Raises:
            ValueError: The grid is smaller than the dilated window.
        """
        query, key, _ = self._project(features)
        return self._pattern(query, key, features.shape[1:-1])

    def forward(
        self, features: Float[Tensor, "batch *grid channel"]
    ) -> Float[Tensor, "batch *grid channel"]:
        """Return what the positions of a grid read of their neighborhoods, projected."""
        grid = features.shape[1:-1]
        query, key, value = self._project(features)
        shown = grid if len(grid) > 1 else None  # one axis is a sequence
        output = self.mixing(self._pattern(query, key, grid), value, grid=shown)
        output = rearrange(output, "batch head position dim -> batch position (head dim)")
        return self.projection(output).reshape(features.shape)

    def _project(self, features: Tensor) -> tuple[Tensor, ...]:
        return rearrange(
            self.query_key_value(features.flatten(1, -2)),
            "batch position (factor head dim) -> factor batch head position dim",
            factor=3,
            head=self.heads,
        ).unbind()

    def _pattern(self, query: Tensor, key: Tensor, grid: Sequence[int]) -> AttentionOperator:
        neighborhood = Neighborhood.of(grid, *self.rules)
        query = query * query.shape[-1] ** -0.5
        if self.relative_position is None:
            return neighborhood_operator(query, key, neighborhood)
        return neighborhood_pattern(query, key, neighborhood, self.relative_position)
