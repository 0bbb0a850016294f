"""`TilePyramid`: one map at every zoom, as tiles of 256 by 256 cells, like a street map.

A cell of level `l` is the reduction of `2**l` by `2**l` entries. The fine levels are computed from
the map when a tile is asked for; the coarse ones, each tile of which would touch much of the map,
are filled once, stripe by stripe, and read from then on.
"""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.figures.errors import FigureError
from attnscope.figures.head_map import HeadMap
from attnscope.figures.map_cells import MapCells, cells_of
from attnscope.figures.reduction import Reduction, maximum, mean

__all__ = ["TILE", "TilePyramid"]

TILE = 256
"""Cells along each side of a tile; the last tiles of a row and of a column may have fewer."""

_LEAST_KEPT = 3
"""Finest level that is ever kept: a tile below it costs at most 2**20 entries."""

_LEVELS_KEPT = 5
"""Levels kept at most: cells of the finest one are 4,096 along an axis, whatever the map."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TilePyramid:
    """A map and what is known of its coarse levels.

    A stripe is a run of queries as high as a tile of the finest level kept, a whole number of
    cells of every level. Stripes hold bfloat16: every number is within 1/256 of itself.

    Attributes:
        source: The map.
        stripes: The kept cells by `name(reduction, level, stripe)`; filled as they get known.

    Example:
        >>> from attnscope.attention import SoftmaxAttention
        >>> from attnscope.figures.head_map import pattern_map
        >>> zeros = torch.zeros(1, 1000, 4)
        >>> pyramid = TilePyramid(source=pattern_map(SoftmaxAttention(zeros, zeros)))
        >>> pyramid.top, pyramid.grid(0), pyramid.grid(2)
        (2, (4, 4), (1, 1))
        >>> pyramid.tile(2, 0, 0).shape, float(pyramid.tile(0, 0, 0)[3, 3])
        (torch.Size([250, 250]), 0.25)
    """

    source: HeadMap
    stripes: MutableMapping[str, Tensor] = field(default_factory=dict)

    @property
    def top(self) -> int:
        """Return the coarsest level: one tile shows the whole map."""
        cells, level = max(self.source.queries, self.source.keys), 0
        while -(-cells // 2**level) > TILE:
            level += 1
        return level

    @property
    def kept(self) -> range:
        """Return the levels that are filled once; none where the map is small."""
        first = max(_LEAST_KEPT, self.top - _LEVELS_KEPT + 1)
        return range(first, self.top + 1)

    def cells(self, level: int) -> tuple[int, int]:
        """Return how many rows and columns of cells a level has."""
        return -(-self.source.queries // 2**level), -(-self.source.keys // 2**level)

    def grid(self, level: int) -> tuple[int, int]:
        """Return how many rows and columns of tiles a level has."""
        rows, columns = self.cells(level)
        return -(-rows // TILE), -(-columns // TILE)

    def tile(
        self, level: int, row: int, column: int, reduction: Reduction = maximum
    ) -> Float[Tensor, "query_cell key_cell"]:
        """Return a tile; NaN where nothing exists, or where a coarse level is not filled yet.

        Raises:
            FigureError: There is no such tile.
        """
        rows, columns = self.grid(level) if 0 <= level <= self.top else (0, 0)
        if not (0 <= row < rows and 0 <= column < columns):
            raise FigureError(
                f"no tile {row}, {column} of level {level}; levels are 0 to {self.top}, "
                f"and this one has {rows} x {columns} tiles"
            )
        height, width = self.cells(level)
        top, left = row * TILE, column * TILE
        return self.window(
            level,
            range(top, min(top + TILE, height)),
            range(left, min(left + TILE, width)),
            reduction,
        )

    def window(
        self, level: int, rows: range, columns: range, reduction: Reduction = maximum
    ) -> Float[Tensor, "query_cell key_cell"]:
        """Return any run of cells of a level, as `tile` does."""
        if level in self.kept:
            return self._read(level, rows, columns, reduction)
        cells = self._computed(level, rows, columns)
        return cells.max if reduction.name == "max" else cells.mean

    def is_filled(self, level: int, rows: range) -> bool:
        """Return whether rows of cells of a level are final, and not waiting for a stripe."""
        return level not in self.kept or all(
            self.name(maximum, level, stripe) in self.stripes
            for stripe in self._stripes_of(level, rows)
        )

    # --- filling the coarse levels ----------------------------------------------------------

    @property
    def stripe_height(self) -> int:
        """Return how many queries a stripe has."""
        return max(TILE * 2**self.kept.start, 2**self.top) if self.kept else 0

    @property
    def missing(self) -> list[int]:
        """Return the stripes that are not filled yet."""
        if not self.kept:
            return []
        count = -(-self.source.queries // self.stripe_height)
        return [
            stripe
            for stripe in range(count)
            if self.name(maximum, self.kept.start, stripe) not in self.stripes
        ]

    @property
    def share(self) -> float:
        """Return which share of the work on the coarse levels is done, from 0 to 1."""
        every = range(-(-self.source.queries // self.stripe_height)) if self.kept else ()
        whole = sum(map(self._entries, every))
        return 1 - sum(map(self._entries, self.missing)) / whole if whole else 1.0

    def fill(self, stripe: int) -> None:
        """Compute a stripe of all kept levels and both reductions, in one pass over its entries."""
        queries = self._queries(stripe)
        keys = range(self.source.key_stop(queries.stop))
        cells = cells_of(self.source, queries, keys, 2**self.kept.start)
        found: dict[str, Tensor] = {}
        for level in self.kept:
            if level > self.kept.start:
                cells = cells.coarser()
            found[self.name(maximum, level, stripe)] = cells.max.bfloat16()
            found[self.name(mean, level, stripe)] = cells.mean.bfloat16()
        # Backwards, so that the name which `missing` looks for appears when all the others are in.
        for name in reversed(found):
            self.stripes[name] = found[name]

    @staticmethod
    def name(reduction: Reduction, level: int, stripe: int) -> str:
        """Return under which name the cells of a stripe are kept."""
        return f"{reduction.name}/{level}/{stripe}"

    def _queries(self, stripe: int) -> range:
        start = stripe * self.stripe_height
        return range(start, min(start + self.stripe_height, self.source.queries))

    def _entries(self, stripe: int) -> int:
        queries = self._queries(stripe)
        return len(queries) * self.source.key_stop(queries.stop)

    def _computed(self, level: int, rows: range, columns: range) -> MapCells:
        step = 2**level
        queries = range(rows.start * step, min(rows.stop * step, self.source.queries))
        keys = range(columns.start * step, min(columns.stop * step, self.source.keys))
        return cells_of(self.source, queries, keys, step)

    def _stripes_of(self, level: int, rows: range) -> range:
        height = self.stripe_height // 2**level
        return range(rows.start // height, (rows.stop - 1) // height + 1)

    def _read(self, level: int, rows: range, columns: range, reduction: Reduction) -> Tensor:
        cells = torch.full((len(rows), len(columns)), torch.nan)
        for place, kept in self._pieces(level, rows, reduction):
            width = min(columns.stop, kept.shape[1]) - columns.start
            if width > 0:
                part = kept[:, columns.start : columns.start + width]
                cells[place, :width] = part.float()
        return cells

    def _pieces(
        self, level: int, rows: range, reduction: Reduction
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield where in a run of rows each kept piece of it belongs, and the piece."""
        height = self.stripe_height // 2**level
        for stripe in self._stripes_of(level, rows):
            kept = self.stripes.get(self.name(reduction, level, stripe))
            if kept is None:
                continue
            first = max(rows.start, stripe * height)
            stop = min(rows.stop, stripe * height + len(kept))
            piece = kept[first - stripe * height : stop - stripe * height]
            yield slice(first - rows.start, stop - rows.start), piece
