"""`Zoom` and `reduced_tile`: any part of a map, of any size, as few enough cells to see.

Cells are filled from tiles of the operator, one strip at a time, so a map of any length costs the
memory of one strip and of the cells, never of the map.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.figures.errors import FigureError

__all__ = ["Reduction", "Zoom", "maximum", "mean", "reduced_tile"]

_STRIP_ENTRIES = 2**22
"""Entries of the largest tile that is asked of the operator at once (16 MiB in float32)."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A way to make one number of the entries that fall into a cell.

    Attributes:
        name: What captions call it.
        function: Reduces the last axis; entries that do not exist are NaN.
    """

    name: str
    function: Callable[[Float[Tensor, "*axes entry"]], Float[Tensor, "*axes"]]


def _largest_in_size(entries: Float[Tensor, "*axes entry"]) -> Float[Tensor, "*axes"]:
    place = entries.abs().nan_to_num(-1.0).argmax(-1, keepdim=True)
    return entries.gather(-1, place).squeeze(-1)


def _mean(entries: Float[Tensor, "*axes entry"]) -> Float[Tensor, "*axes"]:
    return entries.nanmean(-1)


maximum = Reduction("max", _largest_in_size)
"""The entry largest in size, with its sign: what stands out in one token stays visible."""

mean = Reduction("mean", _mean)
"""The mean over the entries that exist: what is spread out keeps its weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoom:
    """Which part of a map to show, and how finely.

    Attributes:
        queries: The queries shown; None for all.
        keys: The keys shown; None for all.
        cells: Most cells along either axis; a longer axis is reduced.
        reduction: What a cell shows of the entries that fall into it.
    """

    queries: slice | None = None
    keys: slice | None = None
    cells: int = 512
    reduction: Reduction = maximum

    def __post_init__(self) -> None:
        """Refuse a picture without cells and slices that skip positions."""
        if self.cells < 1:
            raise FigureError(
                f"cells is {self.cells}; a map needs at least one cell along each axis"
            )
        for name, chosen in (("queries", self.queries), ("keys", self.keys)):
            if chosen is not None and chosen.step not in (None, 1):
                raise FigureError(
                    f"{name} step by {chosen.step}; a map shows a run of positions without gaps"
                )

    def positions(self, attention: AttentionOperator) -> tuple[range, range]:
        """Return the queries and the keys that are shown.

        Raises:
            FigureError: Nothing lies within the slices.
        """
        queries = range(attention.queries)[self.queries or slice(None)]
        keys = range(attention.keys)[self.keys or slice(None)]
        if not queries or not keys:
            raise FigureError(
                f"the zoom shows {len(queries)} queries and {len(keys)} keys; "
                f"this map has queries 0 to {attention.queries - 1}, keys 0 to {attention.keys - 1}"
            )
        return queries, keys

    def step(self, positions: range) -> int:
        """Return how many positions share one cell."""
        return -(-len(positions) // self.cells)


def reduced_tile(attention: AttentionOperator, zoom: Zoom) -> Float[Tensor, "query_cell key_cell"]:
    """Return the cells of the mean over heads.

    A cell is NaN where nothing exists: all its keys lie in the future, or no query is valid.
    """
    queries, keys = zoom.positions(attention)
    query_step, key_step = zoom.step(queries), zoom.step(keys)
    area = max(1, _STRIP_ENTRIES // attention.heads)
    width = key_step * max(1, min(len(keys), area // query_step) // key_step)
    height = query_step * max(1, area // (query_step * width))
    valid = attention.valid_queries.reshape(-1, attention.queries)
    strips = []
    for block in _runs(queries, height):
        cells = []
        for chosen in _runs(keys, width):
            entries = _entries(attention, block, chosen, valid[:, block.start : block.stop])
            cells.append(_cells(entries, query_step, key_step, zoom.reduction))
        strips.append(torch.cat(cells, dim=-1))
    return torch.cat(strips, dim=-2)


def _entries(
    attention: AttentionOperator, queries: range, keys: range, valid: Tensor
) -> Float[Tensor, "some_query some_key"]:
    """Return a tile of the mean over heads with NaN at what does not exist."""
    offset = attention.offset if attention.causal else None
    if offset is not None and keys.start > queries.stop - 1 + offset:
        return torch.full((len(queries), len(keys)), torch.nan)
    tile = attention.tile(slice(queries.start, queries.stop), slice(keys.start, keys.stop))
    tile = tile.detach().reshape(-1, len(queries), len(keys))
    tile = tile.to("cpu", torch.promote_types(tile.dtype, torch.float32))
    tile = tile.masked_fill(~valid.unsqueeze(-1).cpu(), torch.nan).nanmean(0)
    if offset is None:
        return tile
    future = torch.tensor(keys) > torch.tensor(queries).unsqueeze(-1) + offset
    return tile.masked_fill(future, torch.nan)


def _cells(
    entries: Float[Tensor, "some_query some_key"],
    query_step: int,
    key_step: int,
    reduction: Reduction,
) -> Float[Tensor, "query_cell key_cell"]:
    missing = (-entries.shape[-1] % key_step, -entries.shape[-2] % query_step)
    filled = torch.nn.functional.pad(entries, (0, missing[0], 0, missing[1]), value=torch.nan)
    rows, columns = filled.shape[-2] // query_step, filled.shape[-1] // key_step
    grouped = filled.reshape(rows, query_step, columns, key_step).transpose(1, 2)
    return reduction.function(grouped.reshape(rows, columns, query_step * key_step))


def _runs(positions: range, length: int) -> list[range]:
    return [positions[start : start + length] for start in range(0, len(positions), length)]
