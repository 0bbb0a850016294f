"""`NeighborhoodTiles`: how much work a tiled kernel saves by neighborhood attention, analytically.

A kernel computes whole tiles of queries by keys, `query_tile` x `key_tile` positions of the grid.
It visits a pair of tiles if some query of the one attends to some key of the other. A pair is full
if all of them do; else part of the work is wasted on entries that are masked out.

    flop_bound = all pairs of positions / attended pairs of positions     no kernel is faster
    tile_bound = all pairs of tiles / visited pairs of tiles              a kernel of these tiles

Where every visited pair is full and tiles fill the grid both are the same. The keys of consecutive
queries are one run, so that an axis costs O(tiles) to count and the axes multiply: nothing is
enumerated.

Reference: Hassani et al. 2025, arXiv:2504.16922, announces such a simulator (NATTENSim), which was
not published; these definitions are our reading, and agree with the figures published for it. So is
that the groups of a dilation are tiled apart, and that dense attention is the whole square also
where an axis is causal.
"""

from dataclasses import dataclass, replace
from functools import reduce
from math import ceil, prod

import torch
from jaxtyping import Int
from torch import Tensor

from attnscope.models.neighborhood_index import Neighborhood, NeighborhoodAxis

__all__ = ["AxisTiles", "NeighborhoodTiles"]

_MAP_LIMIT = 2**26
"""Most pairs of tiles that are laid out as a map."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AxisTiles:
    """The key tiles that each query tile of one axis visits, and those it attends to in full.

    Attributes:
        visited: Start and stop of the run of visited key tiles.
        full: Start and stop of the run of key tiles that are attended to in full.
        key_tiles: Number of key tiles.
        pairs: Attended pairs of positions.
    """

    visited: Int[Tensor, "query_tile 2"]
    full: Int[Tensor, "query_tile 2"]
    key_tiles: int
    pairs: int

    @classmethod
    def of(cls, axis: NeighborhoodAxis, query_tile: int, key_tile: int) -> "AxisTiles":
        """Return the tiles of an axis; the groups of its dilation stand one after the other."""
        visited, full, tiles, pairs = [], [], 0, 0
        for group in range(axis.dilation):
            size = ceil((axis.length - group) / axis.dilation)
            runs = _runs(axis, size, query_tile, key_tile)
            visited.append(runs[0] + tiles)
            full.append(runs[1] + tiles)
            tiles += ceil(size / key_tile)
            pairs += _attended_pairs(axis, size)
        return cls(visited=torch.cat(visited), full=torch.cat(full), key_tiles=tiles, pairs=pairs)

    @property
    def query_tiles(self) -> int:
        """Return the number of query tiles."""
        return len(self.visited)

    @property
    def visits(self) -> int:
        """Return the number of visited pairs of tiles."""
        return int(self.visited.diff(dim=-1).sum())

    @property
    def full_visits(self) -> int:
        """Return the number of pairs of tiles that are attended to in full."""
        return int(self.full.diff(dim=-1).sum())

    @property
    def most(self) -> int:
        """Return the most key tiles that a query tile visits."""
        return int(self.visited.diff(dim=-1).max())

    def states(self) -> Int[Tensor, "state query_tile key_tile"]:
        """Return whether each pair of tiles is visited and whether it is full, as 0 and 1."""
        runs = torch.stack([self.visited, self.full])[..., None, :]
        tile = torch.arange(self.key_tiles)
        return ((tile >= runs[..., 0]) & (tile < runs[..., 1])).long()


@dataclass(frozen=True, slots=True)
class NeighborhoodTiles:
    """A neighborhood attention cut into tiles of queries and keys.

    Args:
        neighborhood: The grid, window, stride, dilation and causality of each axis.
        query_tile: Length of a query tile along each axis.
        key_tile: Length of a key tile along each axis.

    Raises:
        ValueError: A tile has not one positive length for each axis.

    Example:
        >>> sliding = Neighborhood.of((32768,), 2048)
        >>> tiles = NeighborhoodTiles(sliding, (128,), (128,))
        >>> tiles.visits, round(tiles.tile_bound, 3), tiles.flop_bound
        (4336, 15.114, 16.0)
        >>> best = tiles.with_best_stride()
        >>> best.stride, best.visits, best.fully_block_sparse
        ((256,), 4096, True)
    """

    neighborhood: Neighborhood
    query_tile: tuple[int, ...]
    key_tile: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse tiles that do not fit the grid's axes."""
        for name, tile in (("query", self.query_tile), ("key", self.key_tile)):
            if len(tile) != len(self.neighborhood.axes) or min(tile) < 1:
                raise ValueError(
                    f"a {name} tile of {tile} does not fit; it needs a positive length for each "
                    f"of the {len(self.neighborhood.axes)} axes of the grid"
                )

    @property
    def axes(self) -> tuple[AxisTiles, ...]:
        """Return the tiles of each axis."""
        return tuple(map(AxisTiles.of, self.neighborhood.axes, self.query_tile, self.key_tile))

    @property
    def stride(self) -> tuple[int, ...]:
        """Return the stride of each axis."""
        return tuple(axis.stride for axis in self.neighborhood.axes)

    @property
    def tiles(self) -> tuple[int, int]:
        """Return the number of query tiles and of key tiles."""
        axes = self.axes
        return prod(axis.query_tiles for axis in axes), prod(axis.key_tiles for axis in axes)

    @property
    def visits(self) -> int:
        """Return the number of pairs of tiles that a kernel computes."""
        return prod(axis.visits for axis in self.axes)

    @property
    def full_visits(self) -> int:
        """Return the number of pairs of tiles of which every entry is wanted."""
        return prod(axis.full_visits for axis in self.axes)

    @property
    def most_visits(self) -> int:
        """Return the most key tiles that one query tile visits."""
        return prod(axis.most for axis in self.axes)

    @property
    def pairs(self) -> int:
        """Return the number of attended pairs of positions."""
        return prod(axis.pairs for axis in self.axes)

    @property
    def sparsity(self) -> float:
        """Return the share of pairs of positions that are not attended to."""
        return 1 - self.pairs / self.neighborhood.positions**2

    @property
    def flop_bound(self) -> float:
        """Return how many times fewer operations there are than of dense attention."""
        return self.neighborhood.positions**2 / self.pairs

    @property
    def tile_bound(self) -> float:
        """Return how many times fewer tiles are computed than of dense attention."""
        return prod(self.tiles) / self.visits

    @property
    def wasted(self) -> float:
        """Return the share of the computed entries that are masked out or beyond the grid."""
        return 1 - self.pairs / (self.visits * prod(self.query_tile) * prod(self.key_tile))

    @property
    def fully_block_sparse(self) -> bool:
        """Return whether every computed pair of tiles is full: the kernel needs no mask."""
        return self.visits == self.full_visits

    def map(self) -> Int[Tensor, "query_tile key_tile"]:
        """Return 0 for each pair of tiles that is skipped, 1 if visited in part, 2 if full.

        Tiles are in raster order.

        Raises:
            ValueError: There are more than 2^26 pairs of tiles.
        """
        if prod(self.tiles) > _MAP_LIMIT:
            raise ValueError(
                f"a map of {self.tiles[0]} x {self.tiles[1]} tiles is too large; "
                f"{_MAP_LIMIT:,} pairs can be shown: take larger tiles or a smaller grid"
            )
        return reduce(_crossed, [axis.states() for axis in self.axes]).sum(0)

    def with_best_stride(self) -> "NeighborhoodTiles":
        """Return the same problem with the smallest strides that waste nothing.

        Where an axis has none, it takes the smallest of those that visit the fewest tiles.
        """
        tiled = zip(self.neighborhood.axes, self.query_tile, self.key_tile, strict=True)
        return replace(self, neighborhood=Neighborhood(tuple(_best(*axis) for axis in tiled)))


def _runs(
    axis: NeighborhoodAxis, size: int, query_tile: int, key_tile: int
) -> tuple[Int[Tensor, "query_tile 2"], Int[Tensor, "query_tile 2"]]:
    """Return the runs of key tiles that the query tiles of one group visit, and attend to in full.

    First and last keys rise with the query, so that a tile's first and last query tell its runs.
    """
    start = torch.arange(0, size, query_tile)
    stop = (start + query_tile).clamp_max(size)
    first_low, first_high = axis.span(start, size)
    last_low, last_high = axis.span(stop - 1, size)
    visited = torch.stack([first_low // key_tile, last_high // key_tile + 1], dim=-1)
    full_start = (last_low + key_tile - 1) // key_tile
    ends_the_group = first_high == size - 1  # its last tile may be shorter
    full_stop = torch.where(ends_the_group, ceil(size / key_tile), (first_high + 1) // key_tile)
    return visited, torch.stack([full_start, torch.maximum(full_start, full_stop)], dim=-1)


def _attended_pairs(axis: NeighborhoodAxis, size: int) -> int:
    if not axis.causal:
        return size * axis.window
    first, last = axis.span(torch.arange(size), size)
    return int((last - first + 1).sum())


def _best(axis: NeighborhoodAxis, query_tile: int, key_tile: int) -> NeighborhoodAxis:
    fewest, best = None, axis
    for stride in range(1, axis.window + 1):
        candidate = replace(axis, stride=stride)
        tiles = AxisTiles.of(candidate, query_tile, key_tile)
        if tiles.visits == tiles.full_visits:
            return candidate
        if fewest is None or tiles.visits < fewest:
            fewest, best = tiles.visits, candidate
    return best


def _crossed(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the states of two axes together: both have to hold."""
    return torch.stack([torch.kron(one, other) for one, other in zip(outer, inner, strict=True)])
