"""`tile_map` and `tile_footprint`: the tiles that a kernel of neighborhood attention computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from attnscope.figures.canvas import matplotlib_canvas, plotly_canvas, style_axes
from attnscope.figures.display import screened_bundle
from attnscope.figures.errors import FigureError
from attnscope.figures.palette import MUTED, TEAL
from attnscope.figures.token_text import escaped
from attnscope.models.neighborhood_tiles import NeighborhoodTiles

if TYPE_CHECKING:
    import matplotlib.figure
    import plotly.graph_objects

__all__ = ["TileMap", "tile_footprint", "tile_map"]

_STATES = (("skipped", "#ececec"), ("computed in part", "#e8a33d"), ("computed in full", TEAL))
_INK = "#1c1e21"
_DRAWABLE = 2**21
"""Most tiles that are drawn."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileMap:
    """Tiles in the three states that a kernel knows, and all that is written around them.

    Attributes:
        states: 0 for each skipped tile, 1 for one computed in part, 2 for one computed in full.
        size: Rows and columns of the picture that a tile covers.
        axes: What lies along the rows and along the columns.
        title: What is shown.
        caption: The figures.
        outline: A box to draw around the query tile: left, top, right, bottom.
    """

    states: Int[Tensor, "row column"]
    size: tuple[int, int]
    axes: tuple[str, str]
    title: str
    caption: str
    outline: Box | None = None

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the tiles for a screen: every cell tells its place and its state."""
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=640)
        rows, columns = self.states.shape
        figure.add_heatmap(
            z=self.states.numpy(),
            x0=(self.size[1] - 1) / 2,
            dx=self.size[1],
            y0=(self.size[0] - 1) / 2,
            dy=self.size[0],
            zmin=-0.5,
            zmax=2.5,
            colorscale=_steps(),
            showscale=False,
            customdata=[[_STATES[state][0] for state in row] for row in self.states.tolist()],
            hovertemplate=f"{self.axes[0]} %{{y}}, {self.axes[1]} %{{x}}<br>%{{customdata}}"
            "<extra></extra>",
        )
        for name, color in _STATES:
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="markers",
                name=name,
                marker={"symbol": "square", "size": 12, "color": color},
            )
        if self.outline is not None:
            left, top, right, bottom = (edge - 0.5 for edge in self.outline)
            figure.add_shape(x0=left, y0=top, x1=right, y1=bottom, line={"color": _INK, "width": 3})
        figure.update_layout(
            legend={"itemclick": False, "itemdoubleclick": False},
            xaxis={
                "title": {"text": self.axes[1]},
                "showgrid": False,
                "constrain": "domain",
                "range": [-0.5, columns * self.size[1] - 0.5],
            },
            yaxis={
                "title": {"text": self.axes[0]},
                "showgrid": False,
                "constrain": "domain",
                "scaleanchor": "x",
                "range": [rows * self.size[0] - 0.5, -0.5],
            },
        )
        return figure

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the tiles for paper, with the same cells, colors and texts."""
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch, Rectangle

        rows, columns = (
            count * size for count, size in zip(self.states.shape, self.size, strict=True)
        )
        figure = matplotlib_canvas(6.8, min(9.0, max(2.6, 6.0 * rows / columns + 1.4)))
        axes = figure.add_subplot()
        axes.imshow(
            self.states.numpy(),
            cmap=ListedColormap([color for _, color in _STATES]),
            vmin=0,
            vmax=2,
            extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
            interpolation="nearest",
        )
        if self.outline is not None:
            left, top, right, bottom = self.outline
            corner = (left - 0.5, top - 0.5)
            axes.add_patch(
                Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=_INK, lw=2)
            )
        style_axes(axes, self.title, self.caption)
        axes.set_xlabel(self.axes[1], fontsize=9)
        axes.set_ylabel(self.axes[0], fontsize=9)
        axes.locator_params(integer=True)
        figure.legend(
            handles=[
                Patch(facecolor=color, edgecolor=MUTED, linewidth=0.5, label=name)
                for name, color in _STATES
            ],
            loc="outside lower left",
            ncols=3,
            fontsize=8,
            frameon=False,
        )
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)


def tile_map(tiles: NeighborhoodTiles, *, title: str = "Tiles of the attention map") -> TileMap:
    """Return every pair of tiles: queries along the rows, keys along the columns, in raster order.

    Raises:
        FigureError: There are too many tiles to draw.

    Example:
        >>> from attnscope.models.neighborhood_index import Neighborhood
        >>> tiles = NeighborhoodTiles(Neighborhood.of((6,), 3), (2,), (2,))
        >>> shown = tile_map(tiles)
        >>> shown.states.tolist()
        [[2, 1, 0], [1, 2, 1], [0, 1, 2]]
        >>> shown.caption
        '7 of 9 tiles, 1.29x fewer than dense (2x at best); 36% of the work is masked out'
    """
    _check_drawable(prod(tiles.tiles))
    return TileMap(
        states=tiles.map(),
        size=(1, 1),
        axes=("query tile", "key tile"),
        title=title,
        caption=_figures(tiles),
    )


def tile_footprint(
    tiles: NeighborhoodTiles, query_tile: Sequence[int] | None = None, *, title: str = ""
) -> TileMap:
    """Return the key tiles of one query tile, where they lie in a grid of two axes.

    Args:
        tiles: A neighborhood attention, cut into tiles.
        query_tile: Which tile, by its row and column of tiles; by default the one in the middle.
        title: What to write above; by default which query tile it is.

    Raises:
        FigureError: The grid has not two axes or is dilated, or there is no such query tile.
    """
    axes = tiles.axes
    if len(axes) != 2 or any(axis.dilation > 1 for axis in tiles.neighborhood.axes):
        raise FigureError(
            "a footprint is drawn in a grid of two axes without dilation; this one has the axes "
            f"{tiles.neighborhood.grid} with dilations "
            f"{tuple(axis.dilation for axis in tiles.neighborhood.axes)}"
        )
    counts = tuple(axis.query_tiles for axis in axes)
    row, column = query_tile or (counts[0] // 2, counts[1] // 2)
    if not (0 <= row < counts[0] and 0 <= column < counts[1]):
        raise FigureError(
            f"no query tile ({row}, {column}); there are {counts[0]} rows of {counts[1]}"
        )
    _check_drawable(prod(axis.key_tiles for axis in axes))
    rows, columns = axes[0].states()[:, row], axes[1].states()[:, column]
    height, width = tiles.query_tile
    return TileMap(
        states=torch.einsum("sr,sc->rc", rows, columns),
        size=(tiles.key_tile[0], tiles.key_tile[1]),
        axes=("row", "column"),
        title=title or f"Keys of the query tile at row {row * height}, column {column * width}",
        caption=_figures(tiles),
        outline=(
            column * width,
            row * height,
            min((column + 1) * width, tiles.neighborhood.grid[1]),
            min((row + 1) * height, tiles.neighborhood.grid[0]),
        ),
    )


def _check_drawable(count: int) -> None:
    if count > _DRAWABLE:
        raise FigureError(
            f"{count:,} tiles are too many to draw; at most {_DRAWABLE:,}: take larger tiles"
        )


def _figures(tiles: NeighborhoodTiles) -> str:
    return (
        f"{tiles.visits:,} of {prod(tiles.tiles):,} tiles, {tiles.tile_bound:.3g}x fewer than "
        f"dense ({tiles.flop_bound:.3g}x at best); {tiles.wasted:.0%} of the work is masked out"
    )


def _steps() -> list[list[float | str]]:
    """Return plotly's color scale of three flat steps."""
    edges = ((state / 3, (state + 1) / 3) for state in range(3))
    return [[edge, color] for (_, color), pair in zip(_STATES, edges, strict=True) for edge in pair]
