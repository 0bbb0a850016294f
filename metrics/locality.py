"""Locality along a sequence: the mean distance of attention, and the mass within a window."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import (
    Rows,
    chosen_rows,
    distances,
    mean_rows,
    precise,
    require_positions,
    row_shares,
)
from attnscope.metrics.spans import head_span

__all__ = ["mean_distance", "window_mass"]

_ROWS = 256


def mean_distance(
    attention: AttentionOperator, queries: Rows | None = None
) -> Float[Tensor, "*batch head"]:
    """Return the mean attention distance of each head along the sequence, in both directions.

    The mean over queries of ``sum_s A_ts |t - s|``: 0 for a head that reads each token at its own
    place. For causal attention this is `head_span`; otherwise one pass with O(T block) memory.

    Args:
        attention: Attention along one sequence whose rows are distributions, or parts of one.
        queries: Rows to average over; by default all.

    Raises:
        MetricError: The attention is not a distribution along one sequence.

    Reference: Dosovitskiy et al. 2020, arXiv:2010.11929, mean attention distance, here in one
        dimension; `patch_distance` is its form on images.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> uniform = DenseAttention(torch.full((1, 3, 3), 1 / 3))
        >>> round(float(mean_distance(uniform)), 4)  # (1 + 2/3 + 1) / 3
        0.8889
    """
    offset = require_positions(attention, "mean_distance")
    if attention.causal:
        return head_span(attention, queries)
    row_shares(attention, "mean_distance")
    distance = torch.cat(
        [
            (precise(tile) * distances(attention, block, offset).abs()).sum(-1)
            for block, tile in attention.blocks()
        ],
        dim=-1,
    )
    return mean_rows(distance, chosen_rows(attention, queries))


def window_mass(
    attention: AttentionOperator, radius: int = 10
) -> Float[Tensor, "*batch head query"]:
    """Return the attention that each query keeps within a window around itself.

    ``sum over |t - s| <= radius of A_ts``: 1 when nothing further is read, 0 when nothing nearer
    is. NaN for a query that sees no key. Costs O(T radius).

    Args:
        attention: Attention along one sequence whose rows are distributions, or parts of one.
        radius: Furthest distance inside the window; 0 is the token itself.

    Raises:
        MetricError: The radius is negative, or the attention is no distribution along one sequence.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> [round(float(x), 4) for x in window_mass(A, radius=1)[0]]
        [1.0, 1.0, 0.8]
    """
    if radius < 0:
        raise MetricError(f"window_mass radius is {radius}; it is 0 or more")
    offset = require_positions(attention, "window_mass")
    mass = row_shares(attention, "window_mass")
    if attention.causal:
        reach = max(1, min(radius + 1, attention.queries + offset))
        inside = precise(attention.band(reach)).sum(-1)
    else:
        starts = range(0, attention.queries, max(radius, _ROWS))
        inside = torch.cat(
            [_tile_mass(attention, start, radius, offset) for start in starts], dim=-1
        )
    return torch.where(mass.isnan(), torch.nan, inside)


def _tile_mass(
    attention: AttentionOperator, start: int, radius: int, offset: int
) -> Float[Tensor, "*batch head some_query"]:
    """Return the mass near the diagonal of some rows, from the tile that holds it."""
    block = slice(start, min(start + max(radius, _ROWS), attention.queries))
    low = max(0, block.start + offset - radius)
    near = slice(low, max(low, min(attention.keys, block.stop + offset + radius)))
    inside = distances(attention, block, offset)[:, near].abs() <= radius
    return torch.where(inside, precise(attention.tile(block, near)), 0).sum(-1)
