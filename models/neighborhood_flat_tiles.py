"""What a kernel computes whose tiles are runs of the flattened grid: the cost of one dimension.

A run of positions in raster order is a thin strip of the grid, whose neighborhoods touch many more
tiles than those of a compact block of as many positions.
"""

import torch

from attnscope.models.neighborhood_index import Neighborhood

__all__ = ["flattened_visits"]


def flattened_visits(neighborhood: Neighborhood, query_tile: int, key_tile: int) -> int:
    """Return how many pairs of tiles are visited, tiles being runs of positions in raster order.

    O(positions / tile + rows) runs are counted, each with one run of keys per row of its window.

    Raises:
        ValueError: A tile is empty, or the last axis is dilated, so that keys are no runs.

    Reference: the "curse of multi-dimensionality" of Hassani et al. 2025, arXiv:2504.16922; the
    count is our reading.

    Example:
        >>> flattened_visits(Neighborhood.of((4, 4), (2, 2), (2, 2)), 4, 4)  # a row needs two rows
        8
    """
    last = neighborhood.axes[-1]
    if min(query_tile, key_tile) < 1 or last.dilation > 1:
        raise ValueError(
            f"tiles of {query_tile} and {key_tile} flattened positions, last axis dilated by "
            f"{last.dilation}: tiles need a positive length and the last axis dilation 1"
        )
    total, width = neighborhood.positions, last.length
    borders = [torch.arange(0, total, step) for step in (query_tile, width)]
    start = torch.cat(borders).unique()  # of the pieces that lie in one tile and in one row
    stop = torch.cat([start[1:], torch.tensor([total])])
    low = last.span(start % width, width)[0]
    high = last.span((stop - 1) % width, width)[1]
    rows = torch.zeros(1, 1, dtype=torch.long)
    if len(neighborhood.axes) > 1:
        rows = Neighborhood(neighborhood.axes[:-1]).keys()
    rows = rows[start // width]
    tile = (start // query_tile)[:, None].expand_as(rows)
    seen = rows >= 0
    changes = torch.zeros(-(-total // query_tile), -(-total // key_tile) + 1, dtype=torch.long)
    for column, change in ((low, 1), (high + key_tile, -1)):
        place = (rows * width + column[:, None]) // key_tile
        changes.index_put_((tile[seen], place[seen]), torch.tensor(change), accumulate=True)
    return int((changes.cumsum(-1) > 0).sum())
