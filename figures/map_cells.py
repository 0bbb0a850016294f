"""`MapCells`: a part of a map as few enough cells to see, by largest entry and by mean at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.figures.head_map import HeadMap

__all__ = ["STRIP_ENTRIES", "MapCells", "cells_of"]

STRIP_ENTRIES = 2**20
"""Entries of the largest block that is asked of a map at once (4 MiB in float32)."""


_Reduce = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapCells:
    """What has to be known of cells to join them into coarser ones.

    Attributes:
        largest: The entry largest in size, with its sign; 0 where nothing exists.
        total: The sum of the entries.
        count: How many entries exist.
    """

    largest: Float[Tensor, "query_cell key_cell"]
    total: Float[Tensor, "query_cell key_cell"]
    count: Float[Tensor, "query_cell key_cell"]

    @property
    def max(self) -> Float[Tensor, "query_cell key_cell"]:
        """Return the entry largest in size, NaN where nothing exists: one token stays visible."""
        return self.largest.masked_fill(self.count == 0, torch.nan)

    @property
    def mean(self) -> Float[Tensor, "query_cell key_cell"]:
        """Return the mean over the entries that exist: what is spread out keeps its weight."""
        return self.total / self.count  # 0 / 0 is NaN, as it should be

    def coarser(self, factor: int = 2) -> "MapCells":
        """Return cells of `factor` by `factor` of these, the last ones cut off.

        Example:
            >>> numbers, ones = torch.tensor([[1.0, 2, 3], [4, -5, 6]]), torch.ones(2, 3)
            >>> fine = MapCells(largest=numbers, total=numbers, count=ones)
            >>> fine.coarser().largest.tolist(), fine.coarser().count.tolist()
            ([[-5.0, 6.0]], [[4.0, 2.0]])
        """
        return MapCells(
            largest=_largest(self.largest, factor),
            total=_reduced(self.total, factor, torch.sum),
            count=_reduced(self.count, factor, torch.sum),
        )


def cells_of(source: HeadMap, queries: range, keys: range, step: int) -> MapCells:
    """Return the cells of `step` by `step` entries of a part of a map, the last ones cut off.

    Memory is that of a strip of `STRIP_ENTRIES` entries (one row of cells at least) and of the
    cells, whatever the part. What lies behind the last key of a strip's queries is not computed.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> from attnscope.figures.head_map import pattern_map
        >>> own = pattern_map(DenseAttention(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])))
        >>> cells = cells_of(own, range(2), range(2), 2)  # the first token has no second key
        >>> float(cells.max), round(float(cells.mean), 4)
        (1.0, 0.6667)
    """
    shape = -(-len(queries) // step), -(-len(keys) // step)
    cells = MapCells(largest=torch.zeros(shape), total=torch.zeros(shape), count=torch.zeros(shape))
    for rows, columns in _strips(source, queries, keys, step):
        top, left = (rows.start - queries.start) // step, (columns.start - keys.start) // step
        block = source.block(rows, columns)
        part = MapCells(
            largest=_largest(block, step) if source.signed else _reduced(block, step, torch.amax),
            total=_reduced(block, step, torch.sum),
            count=_counted(source, rows, columns, step),
        )
        place = slice(top, top + len(part.count)), slice(left, left + part.count.shape[1])
        cells.largest[place], cells.total[place] = part.largest, part.total
        cells.count[place] = part.count
    return cells


def _strips(
    source: HeadMap, queries: range, keys: range, step: int
) -> Iterator[tuple[range, range]]:
    """Yield blocks of queries and keys that hold whole cells and fit into a strip."""
    area = max(step * step, STRIP_ENTRIES // source.depth)
    width = step * max(1, min(len(keys) + step - 1, area // step, 2**13) // step)
    height = step * max(1, area // (step * width))
    for top in range(queries.start, queries.stop, height):
        rows = range(top, min(top + height, queries.stop))
        stop = min(keys.stop, source.key_stop(rows.stop))
        for left in range(keys.start, stop, width):
            yield rows, range(left, min(left + width, stop))


def _counted(source: HeadMap, queries: range, keys: range, step: int) -> Tensor:
    """Return how many entries of each cell exist; where all keys do, by rows and columns alone."""
    existing = source.existing(queries, keys)
    if existing.shape[1] > 1 or len(keys) == 1:
        return _reduced(existing, step, torch.sum)
    widths = [min(step, keys.stop - start) for start in range(keys.start, keys.stop, step)]
    return _rows_reduced(existing, step, torch.sum) * torch.tensor(widths)


def _largest(block: Tensor, step: int) -> Tensor:
    most, least = _reduced(block, step, torch.amax), _reduced(block, step, torch.amin)
    return torch.where(-least > most, least, most)


def _reduced(block: Tensor, step: int, reduce: _Reduce) -> Tensor:
    """Reduce rows first, side by side in memory, so that little is left to reduce within rows."""
    rows = _rows_reduced(block, step, reduce)
    missing = -rows.shape[1] % step
    whole = torch.nn.functional.pad(rows, (0, missing)) if missing else rows
    return whole if step == 1 else reduce(whole.unflatten(1, (-1, step)), 2)


def _rows_reduced(block: Tensor, step: int, reduce: _Reduce) -> Tensor:
    """Reduce rows; zeros fill the last cells, which changes no sum and nothing largest in size."""
    missing = -len(block) % step
    whole = torch.nn.functional.pad(block, (0, 0, 0, missing)) if missing else block
    return whole if step == 1 else reduce(whole.unflatten(0, (-1, step)), 1)
