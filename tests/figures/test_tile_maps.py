"""Maps of tiles: the same cells, colors and texts in both libraries, and what is refused."""

import pytest
import torch
from matplotlib.colors import to_hex

from attnscope.figures import FigureError, TileMap, tile_footprint, tile_map
from attnscope.models.neighborhood_index import Neighborhood
from attnscope.models.neighborhood_tiles import NeighborhoodTiles


def image(stride: int = 1) -> NeighborhoodTiles:
    return NeighborhoodTiles(Neighborhood.of((8, 12), 4, stride), (2, 4), (2, 2))


def assert_drawn_alike(shown: TileMap) -> None:
    screen, paper = shown.plotly(), shown.matplotlib()
    axes = paper.axes[0]
    assert torch.equal(torch.tensor(screen.data[0].z), shown.states)
    assert torch.equal(torch.tensor(axes.images[0].get_array().data), shown.states)
    legend = [(trace.name, trace.marker.color) for trace in screen.data[1:]]
    patches = paper.legends[0].get_patches()
    names = [text.get_text() for text in paper.legends[0].get_texts()]
    assert legend == [
        (name, to_hex(patch.get_facecolor())) for name, patch in zip(names, patches, strict=True)
    ]
    assert names == ["skipped", "computed in part", "computed in full"]
    scale = [color for _, color in screen.data[0].colorscale]
    assert scale[::2] == [color for _, color in legend]
    assert screen.layout.title.text == axes.get_title(loc="left").strip() == shown.title
    assert shown.caption in screen.layout.title.subtitle.text
    assert shown.caption in [text.get_text() for text in axes.texts]
    assert (screen.layout.yaxis.title.text, screen.layout.xaxis.title.text) == shown.axes
    assert (axes.get_ylabel(), axes.get_xlabel()) == shown.axes


def test_a_map_shows_every_pair_of_tiles() -> None:
    shown = tile_map(image(), title="<Tiles>")
    assert shown.states.shape == (12, 24)
    assert int((shown.states > 0).sum()) == image().visits
    assert "&lt;Tiles&gt;" in shown.plotly().layout.title.text
    assert_drawn_alike(tile_map(image(4)))


def test_a_footprint_lies_where_the_keys_are() -> None:
    shown = tile_footprint(image(), (1, 2))
    # Rows 2 and 3 read rows 0 to 3 and 1 to 4; columns 8 to 11 read 6 to 9, then thrice 8 to 11.
    assert shown.states.tolist() == [
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 2, 1],
        [0, 0, 0, 1, 1, 1],
        [0] * 6,
    ]
    assert shown.outline == (8, 2, 12, 4)
    assert shown.title == "Keys of the query tile at row 2, column 8"
    assert_drawn_alike(shown)
    box = shown.plotly().layout.shapes[0]
    patch = shown.matplotlib().axes[0].patches[0]
    corner = (patch.get_x(), patch.get_y(), patch.get_x() + patch.get_width())
    assert corner == (box.x0, box.y0, box.x1) == (7.5, 1.5, 11.5)
    assert tile_footprint(image()).outline == (4, 4, 8, 6)


def test_cells_stand_at_the_positions_that_they_cover() -> None:
    shown = tile_footprint(image(), (0, 0))
    cells = shown.plotly().data[0]
    assert (cells.x0, cells.dx, cells.y0, cells.dy) == (0.5, 2, 0.5, 2)
    assert shown.matplotlib().axes[0].images[0].get_extent() == [-0.5, 11.5, 7.5, -0.5]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(FigureError, match=r"no query tile \(4, 0\); there are 4 rows of 3"):
        tile_footprint(image(), (4, 0))
    line = NeighborhoodTiles(Neighborhood.of((4096,), 3), (1,), (1,))
    with pytest.raises(FigureError, match=r"a grid of two axes without dilation; .* \(4096,\)"):
        tile_footprint(line)
    with pytest.raises(FigureError, match="16,777,216 tiles are too many to draw"):
        tile_map(line)
    dilated = NeighborhoodTiles(Neighborhood.of((8, 8), 3, 1, 2), (2, 2), (2, 2))
    with pytest.raises(FigureError, match=r"with dilations \(2, 2\)"):
        tile_footprint(dilated)
