import pytest
import torch

from attnscope.figures import FigureError, head_grid
from attnscope.metrics import Reading


def test_both_libraries_draw_the_same_numbers_colors_and_texts(head_reading: Reading) -> None:
    grid = head_grid(head_reading)
    screen, paper = grid.plotly(), grid.matplotlib()
    mesh = paper.axes[0].collections[0]
    torch.testing.assert_close(torch.tensor(screen.data[0].z), head_reading.values, equal_nan=True)
    cells = torch.tensor(mesh.get_array().filled(float("nan")))
    torch.testing.assert_close(cells, head_reading.values, equal_nan=True)
    assert (screen.layout.coloraxis.cmin, screen.layout.coloraxis.cmax) == mesh.get_clim()
    assert mesh.get_clim() == (0.0, 40.0)
    assert screen.layout.coloraxis.colorbar.title.text == "Head span (tokens)"
    assert paper.axes[0].child_axes[0].get_ylabel() == "Head span (tokens)"
    notes = [note.text for note in screen.layout.annotations]
    written = [text.get_text() for text in paper.axes[0].texts if text.get_text()]
    assert notes == ["1.0", "8.5", "0.2", "40.0", "3.0"]  # nothing where there is no number
    assert written == [head_reading.paper, *notes]


def test_layers_and_heads_go_by_their_numbers_from_the_top(head_reading: Reading) -> None:
    grid = head_grid(head_reading)
    screen, axes = grid.plotly(), grid.matplotlib().axes[0]
    assert list(screen.data[0].y) == ["4", "9"]
    assert screen.layout.yaxis.autorange == "reversed"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["4", "9"]
    assert axes.yaxis_inverted()


def test_large_grids_are_not_written_over() -> None:
    reading = Reading(name="x", values=torch.rand(20, 40), axes=("layer", "head"))
    grid = head_grid(reading)
    assert not grid.plotly().layout.annotations
    assert len(grid.matplotlib().axes[0].get_xticklabels()) == 20  # every other head


def test_ink_is_chosen_by_the_color_of_the_cell(head_reading: Reading) -> None:
    inks = head_grid(head_reading).inks
    assert inks[0][0] == "#ffffff"  # almost nothing is dark
    assert inks[1][1] == "#000000"  # the largest is bright


def test_two_grids_can_share_their_limits(head_reading: Reading) -> None:
    assert head_grid(head_reading, limits=(0.0, 100.0)).plotly().layout.coloraxis.cmax == 100


def test_other_axes_are_refused_with_a_way_out() -> None:
    reading = Reading(name="waad", values=torch.rand(2, 3, 4), axes=("layer", "head", "query"))
    with pytest.raises(FigureError, match=r"head_grid shows .*'waad' has .*average them with mean"):
        head_grid(reading)
    assert head_grid(reading.mean("query")).values.shape == (2, 3)
