"""`attnscope neighborhood`: what tiled kernels gain by neighborhood attention, and which stride."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from attnscope.models.neighborhood_tiles import NeighborhoodTiles

__all__ = ["neighborhood"]

_SIZES = "AxBxC"


def neighborhood(  # noqa: PLR0913 - one parameter per option
    shape: Annotated[
        str, typer.Option(metavar=_SIZES, help="The grid, as in 256x256.", show_default=False)
    ],
    window: Annotated[str, typer.Option(metavar=_SIZES, help="Keys per axis.", show_default=False)],
    query_tile: Annotated[
        str,
        typer.Option(metavar=_SIZES, help="Queries of one tile of the kernel.", show_default=False),
    ],
    key_tile: Annotated[
        str,
        typer.Option(metavar=_SIZES, help="Keys of one tile of the kernel.", show_default=False),
    ],
    stride: Annotated[
        str, typer.Option(metavar=_SIZES, help="Queries that share a window, per axis.")
    ] = "1",
    dilation: Annotated[
        str, typer.Option(metavar=_SIZES, help="Distance of neighbors, per axis.")
    ] = "1",
    causal: Annotated[
        bool, typer.Option("--causal", help="The first axis is time: nobody sees its future.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the tiles to this PNG file.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite this file.")] = False,
) -> None:
    """Count the tiles that neighborhood attention needs, and find the stride that wastes none.

    One number stands for all axes. Nothing is run: the counts are exact.
    """
    from attnscope.app.failures import CommandError
    from attnscope.app.outputs import check_free
    from attnscope.app.screen import print_paths, screen
    from attnscope.models.neighborhood_index import Neighborhood
    from attnscope.models.neighborhood_tiles import NeighborhoodTiles

    check_free([figure] if figure is not None else [], force=force)
    grid = _sizes("--shape", shape)
    rules = [("--window", window), ("--stride", stride), ("--dilation", dilation)]
    tiles = [("--query-tile", query_tile), ("--key-tile", key_tile)]
    try:
        problem = NeighborhoodTiles(
            Neighborhood.of(
                grid,
                *(_sizes(name, text, len(grid)) for name, text in rules),
                causal=tuple(causal and axis == 0 for axis in range(len(grid))),
            ),
            *(_sizes(name, text, len(grid)) for name, text in tiles),
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    screen().print(_table(problem))
    if figure is not None:
        _draw(problem, figure)
        print_paths([figure])


def _sizes(option: str, text: str, axes: int = 1) -> tuple[int, ...]:
    """Return the numbers of an option; a single one stands for all axes."""
    from attnscope.app.failures import CommandError

    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise CommandError(f"{option} is {text!r}; it takes positive numbers, as in 16x8")
    numbers = tuple(map(int, text.split("x")))
    return numbers * axes if len(numbers) == 1 else numbers


def _table(problem: "NeighborhoodTiles") -> "Table":
    """Return the figures of a problem, beside those of its best stride."""
    from attnscope.app.screen import plain_table

    best = problem.with_best_stride()
    table = plain_table("", ">this stride", ">best stride", title=_title(problem))
    columns = [_figures(problem), _figures(best)]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _title(problem: "NeighborhoodTiles") -> str:
    window = "x".join(str(axis.window) for axis in problem.neighborhood.axes)
    grid, query_tile, key_tile = (
        "x".join(map(str, sizes))
        for sizes in (problem.neighborhood.grid, problem.query_tile, problem.key_tile)
    )
    return f"Windows of {window} in {grid}, tiles of {query_tile} queries by {key_tile} keys"


def _figures(tiles: "NeighborhoodTiles") -> dict[str, str]:
    queries, keys = tiles.tiles
    return {
        "stride": "x".join(map(str, tiles.stride)),
        "tiles, queries by keys": f"{queries:,} x {keys:,}",
        "computed tiles": f"{tiles.visits:,}",
        "  in full": f"{tiles.full_visits:,}",
        "  in part (masked)": f"{tiles.visits - tiles.full_visits:,}",
        "  most of one query tile": f"{tiles.most_visits:,}",
        "computed entries that are masked out": f"{tiles.wasted:.1%}",
        "pairs that nobody asks for": f"{tiles.sparsity:.2%}",
        "fewer operations than dense": f"{tiles.flop_bound:.3f}x",
        "fewer tiles than dense": f"{tiles.tile_bound:.3f}x",
        **_flattened(tiles),
        "needs no mask": "yes" if tiles.fully_block_sparse else "no",
    }


def _flattened(tiles: "NeighborhoodTiles") -> dict[str, str]:
    """Return the same bound for as large tiles of the flattened grid, where that is another cut."""
    from math import ceil, prod

    from attnscope.models.neighborhood_flat_tiles import flattened_visits

    axes = tiles.neighborhood.axes
    if len(axes) == 1 or any(axis.dilation > 1 for axis in axes):
        return {}
    areas = prod(tiles.query_tile), prod(tiles.key_tile)
    pairs = prod(ceil(tiles.neighborhood.positions / area) for area in areas)
    bound = pairs / flattened_visits(tiles.neighborhood, *areas)
    return {"  with tiles of the flattened grid": f"{bound:.3f}x"}


def _draw(problem: "NeighborhoodTiles", path: Path) -> None:
    from attnscope.figures import tile_map
    from attnscope.traces import replacement

    picture = tile_map(problem).matplotlib()
    with replacement(path) as stream:
        picture.savefig(stream, format="png", dpi=200)
