"""Tiles of neighborhood attention: published figures, and counting pair by pair."""

from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.models.neighborhood_flat_tiles import flattened_visits
from attnscope.models.neighborhood_index import Neighborhood, NeighborhoodAxis
from attnscope.models.neighborhood_tiles import NeighborhoodTiles

Numbers = tuple[int, ...]


def simulate(
    grid: Numbers, window: Any, stride: Any, query_tile: Numbers, key_tile: Numbers
) -> NeighborhoodTiles:
    return NeighborhoodTiles(Neighborhood.of(grid, window, stride), query_tile, key_tile)


LINE, IMAGE, VIDEO, COSMOS = (32768,), (256, 256), (30, 48, 80), (44, 80)


@pytest.mark.parametrize(
    ("problem", "visits", "tile_bound", "full"),
    [
        ((LINE, 2048, 1, (128,), (128,)), 4336, 15.114, False),
        ((LINE, 2048, 64, (128,), (128,)), 4336, 15.114, False),
        ((LINE, 2048, 128, (128,), (128,)), 4336, 15.114, False),
        ((LINE, 2048, 256, (128,), (128,)), 4096, 16.0, True),
        ((LINE, 2048, 512, (128,), (128,)), 4096, 16.0, True),
        ((LINE, 2048, 2048, (128,), (128,)), 4096, 16.0, True),
        ((IMAGE, 80, 1, (16, 8), (16, 8)), 34884, 7.515, False),
        ((IMAGE, 80, 1, (16, 16), (16, 8)), 18564, 7.061, False),
        ((IMAGE, 80, 16, (16, 8), (16, 8)), 25600, 10.24, True),
        ((IMAGE, 80, 16, (16, 16), (16, 8)), 12800, 10.24, True),
        ((VIDEO, (18, 24, 24), 1, (2, 8, 8), (2, 8, 8)), None, 5.440, False),
        ((VIDEO, (18, 24, 24), 1, (4, 8, 8), (2, 8, 8)), None, 5.245, False),
        ((VIDEO, (18, 24, 24), (2, 8, 8), (2, 8, 8), (2, 8, 8)), None, 11.111, True),
        ((VIDEO, (18, 24, 24), (2, 8, 8), (4, 8, 8), (2, 8, 8)), None, 10.667, False),
        ((VIDEO, (18, 24, 24), (16, 8, 8), (2, 8, 8), (2, 8, 8)), None, 11.111, True),
        ((VIDEO, (18, 24, 24), (16, 8, 8), (4, 8, 8), (2, 8, 8)), None, 11.111, True),
        ((COSMOS, (12, 24), (4, 8), (4, 8), (4, 8)), None, 12.222, True),
        ((COSMOS, (20, 40), (4, 8), (4, 8), (4, 8)), None, 4.4, True),
        ((COSMOS, (28, 56), (4, 8), (4, 8), (4, 8)), None, 2.245, True),
        ((COSMOS, (12, 24), 1, (4, 8), (4, 8)), None, 5.612, False),
        ((COSMOS, (20, 40), 1, (4, 8), (4, 8)), None, 3.010, False),
        ((COSMOS, (28, 56), 1, (4, 8), (4, 8)), None, 1.873, False),
    ],
)
def test_published_problems(
    problem: tuple[Any, ...], visits: int | None, tile_bound: float, full: bool
) -> None:
    tiles = simulate(*problem)
    assert round(tiles.tile_bound, 3) == tile_bound
    assert tiles.fully_block_sparse == full
    if visits is not None:
        assert tiles.visits == visits


@pytest.mark.parametrize(
    ("grid", "window", "percent", "bound"),
    [
        (LINE, 2048, 93.75, 16.0),
        (IMAGE, 80, 90.23, 10.24),
        (VIDEO, (18, 24, 24), 91.0, 11.11),
        (COSMOS, (12, 24), 91.82, 12.22),
        (COSMOS, (20, 40), 77.27, 4.4),
        (COSMOS, (28, 56), 55.45, 2.24),
    ],
)
def test_published_sparsity(grid: Numbers, window: Any, percent: float, bound: float) -> None:
    tile = (1,) * len(grid)
    tiles = simulate(grid, window, 1, tile, tile)
    assert round(100 * tiles.sparsity, 2) == percent
    assert tiles.flop_bound == pytest.approx(bound, abs=0.01)


@pytest.mark.parametrize(
    ("window", "stride", "dilation", "percent"),
    [((4, 16), 1, (11, 5), 98), ((12, 16), (4, 1), (1, 5), 95)],
)
def test_dilated_problems_of_a_published_model(
    window: Numbers, stride: Any, dilation: Numbers, percent: int
) -> None:
    tiles = NeighborhoodTiles(Neighborhood.of(COSMOS, window, stride, dilation), (4, 4), (4, 4))
    assert int(100 * tiles.sparsity + 0.5) in (percent, percent - 1)
    assert tiles.fully_block_sparse  # a group is one whole window along the dilated axes


@pytest.mark.parametrize(
    ("problem", "best"),
    [
        ((LINE, 2048, 1, (128,), (128,)), (256,)),
        ((LINE, 2048, 1, (256,), (128,)), (256,)),
        ((IMAGE, 80, 1, (16, 8), (16, 8)), (16, 16)),
        ((IMAGE, 80, 1, (16, 16), (16, 8)), (16, 16)),
        ((VIDEO, (18, 24, 24), 1, (2, 8, 8), (2, 8, 8)), (2, 8, 8)),
        ((VIDEO, (18, 24, 24), 1, (4, 8, 8), (2, 8, 8)), (16, 8, 8)),
    ],
)
def test_the_best_stride_is_the_smallest_that_wastes_nothing(
    problem: tuple[Any, ...], best: Numbers
) -> None:
    found = simulate(*problem).with_best_stride()
    assert found.stride == best
    assert found.fully_block_sparse


def test_without_a_stride_that_wastes_nothing_the_fewest_visits_count() -> None:
    problem = (11,), 5, 1, (4,), (4,)
    found = simulate(*problem).with_best_stride()
    counts = [simulate((11,), 5, stride, (4,), (4,)) for stride in range(1, 6)]
    assert not any(tiles.fully_block_sparse for tiles in counts)
    visits = [tiles.visits for tiles in counts]
    assert found.visits == min(visits)
    assert found.stride == (1 + visits.index(min(visits)),)


def slow_states(tiles: NeighborhoodTiles) -> Tensor:
    """Return the map of tiles by looking at every pair of positions."""
    axes = tiles.neighborhood.axes
    keys = tiles.neighborhood.keys().tolist()
    places = list(product(*map(range, tiles.neighborhood.grid)))
    queries = _tile_of(axes, places, tiles.query_tile)
    others = _tile_of(axes, places, tiles.key_tile)
    shape = tiles.tiles
    area = torch.zeros(shape, dtype=torch.long)
    hits = torch.zeros(shape, dtype=torch.long)
    for query, own in enumerate(queries):
        for key, its in enumerate(others):
            area[own, its] += 1
            hits[own, its] += key in keys[query]
    return (hits > 0).long() + (hits == area).long()


def _tile_of(axes: tuple[NeighborhoodAxis, ...], places: list[Numbers], tile: Numbers) -> list[int]:
    """Return the raster number of each place's tile; the groups of a dilation are tiled apart."""
    result, per_axis = [], []
    for axis, length in zip(axes, tile, strict=True):
        order = [range(group, axis.length, axis.dilation) for group in range(axis.dilation)]
        number, count = {}, 0
        for group in order:
            for member, place in enumerate(group):
                number[place] = count + member // length
            count += -(-len(group) // length)
        per_axis.append((number, count))
    for place in places:
        flat = 0
        for (number, count), coordinate in zip(per_axis, place, strict=True):
            flat = flat * count + number[coordinate]
        result.append(flat)
    return result


@st.composite
def problems(draw: Any) -> tuple[tuple[NeighborhoodAxis, ...], Numbers, Numbers]:
    rules = []
    for _ in range(draw(st.integers(1, 2))):
        length = draw(st.integers(1, 9))
        dilation = draw(st.integers(1, min(length, 3)))
        window = draw(st.integers(1, length // dilation))
        rules.append(
            NeighborhoodAxis(
                length, window, draw(st.integers(1, window)), dilation, draw(st.booleans())
            )
        )
    tile = st.tuples(*[st.integers(1, 5)] * len(rules))
    return tuple(rules), draw(tile), draw(tile)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_counts_are_those_of_every_pair(
    problem: tuple[tuple[NeighborhoodAxis, ...], Numbers, Numbers],
) -> None:
    tiles = NeighborhoodTiles(Neighborhood(problem[0]), *problem[1:])
    states = slow_states(tiles)
    assert tiles.map().equal(states)
    assert tiles.visits == int((states > 0).sum())
    assert tiles.full_visits == int((states == 2).sum())
    assert tiles.most_visits == int((states > 0).sum(-1).max())
    assert tiles.pairs == int((tiles.neighborhood.keys() >= 0).sum())
    computed = tiles.visits * prod(tiles.query_tile) * prod(tiles.key_tile)
    assert tiles.wasted == pytest.approx(1 - tiles.pairs / computed)
    assert tiles.flop_bound == pytest.approx(1 / (1 - tiles.sparsity))


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 9), st.integers(1, 9))
def test_flattened_tiles_are_counted_pair_by_pair(
    problem: tuple[tuple[NeighborhoodAxis, ...], Numbers, Numbers], query_tile: int, key_tile: int
) -> None:
    neighborhood = Neighborhood(problem[0])
    if neighborhood.axes[-1].dilation > 1:
        with pytest.raises(ValueError, match="the last axis dilation 1"):
            flattened_visits(neighborhood, query_tile, key_tile)
        return
    visited = {
        (query // query_tile, key // key_tile)
        for query, row in enumerate(neighborhood.keys().tolist())
        for key in row
        if key >= 0
    }
    assert flattened_visits(neighborhood, query_tile, key_tile) == len(visited)


def test_flat_tiles_waste_what_compact_tiles_save() -> None:
    tiles = simulate((64, 64), 16, 1, (8, 8), (8, 8))
    assert flattened_visits(tiles.neighborhood, 64, 64) > 1.5 * tiles.visits


@pytest.mark.parametrize("tile", [(16,), (16, 8, 1), (16, 0)])
def test_tiles_that_do_not_fit_are_refused(tile: Numbers) -> None:
    with pytest.raises(ValueError, match="needs a positive length for each of the 2 axes"):
        simulate(IMAGE, 80, 1, (16, 8), tile)


def test_a_map_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="a map of 32768 x 32768 tiles is too large"):
        simulate(LINE, 2048, 1, (1,), (1,)).map()
