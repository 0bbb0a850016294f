"""A gate is drawn where its positions lie, never as a map from position to position."""

from pathlib import Path
from typing import Any

import pytest
import torch

from attnscope.attention import AttentionOperator, GateAttention, SoftmaxAttention
from attnscope.figures import (
    DIVERGING,
    SEQUENTIAL,
    AttentionMap,
    FigureError,
    GateMap,
    HeadName,
    TracePictures,
    Zoom,
    gate_map,
    save_figures,
    write_report,
)
from attnscope.traces import Observation, Segment, Segments, Site, TokenSequence, Trace

GATE = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, -5.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])


def patches(length: int, grid: tuple[int, int]) -> TokenSequence:
    start = length - grid[0] * grid[1]
    return TokenSequence(
        name="image",
        tokens=tuple(map(str, range(length))),
        axis="patch",
        segments=Segments((Segment(name="image", start=start, stop=length, grid=grid),)),
    )


def trace_of(operators: list[AttentionOperator], sequence: TokenSequence) -> Trace:
    return Trace(
        observations=[
            Observation(
                site=Site(
                    stack="blocks",
                    layer=layer,
                    path=f"blocks.{layer}",
                    query_sequence="image",
                    key_sequence="image",
                ),
                attention=operator,
                queries=sequence,
                keys=sequence,
            )
            for layer, operator in enumerate(operators)
        ],
        sequences={"image": sequence},
        main_sequence="image",
    )


def gate(numbers: torch.Tensor = GATE) -> GateAttention:
    return GateAttention(numbers, query_axis="patch", key_axis="patch")


def test_numbers_stand_in_raster_order_on_the_grid() -> None:
    shown = gate_map(gate(), 0, grid=(2, 3))
    assert shown.values.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, -5.0]]
    assert (shown.axes, shown.title, shown.caption) == (("row", "column"), "Gate of head 0", "")


def test_what_turns_signs_is_drawn_around_zero_and_what_cannot_from_zero() -> None:
    signed, positive = gate_map(gate(), 0, grid=(2, 3)), gate_map(gate(GATE.abs()), 0)
    assert (signed.scale.colors, signed.scale.low, signed.scale.high) == (DIVERGING, -5.0, 5.0)
    assert (positive.scale.colors, positive.scale.low) == (SEQUENTIAL, 0.0)


def test_without_a_head_the_mean_is_shown_and_without_a_grid_a_strip() -> None:
    shown = gate_map(gate())
    assert shown.is_strip
    assert shown.axes == ("", "patch")
    assert shown.values.tolist() == [[0.5, 1.0, 1.5, 2.0, 2.5, -2.0]]
    assert shown.caption == "mean of 2 heads"
    assert gate_map(GateAttention(GATE[None]), 1).values.tolist() == [[1.0] * 6]


def test_class_tokens_before_the_grid_are_left_out_and_told() -> None:
    shown = gate_map(gate(), 0, grid=(2, 2))
    assert shown.values.tolist() == [[2.0, 3.0], [4.0, -5.0]]
    assert shown.caption == "not drawn: 2 before the grid"


@pytest.mark.parametrize("grid", [None, (2, 3)])
def test_both_libraries_draw_the_same_cells_colors_and_texts(grid: tuple[int, int] | None) -> None:
    shown = gate_map(gate(), 0, grid=grid, title="<b>$x$</b>")
    screen: Any = shown.plotly()  # the stubs of both libraries know too little
    paper: Any = shown.matplotlib()
    image = paper.axes[0].images[0]
    torch.testing.assert_close(torch.tensor(screen.data[0].z), shown.values)
    torch.testing.assert_close(torch.tensor(image.get_array().filled(float("nan"))), shown.values)
    assert (screen.layout.coloraxis.cmin, screen.layout.coloraxis.cmax) == image.get_clim()
    assert screen.layout.title.text == "&lt;b&gt;&#36;x&#36;&lt;/b&gt;"
    assert paper.axes[0].get_title(loc="left").strip() == "<b>$x$</b>"
    assert paper.axes[0].get_xlabel() == screen.layout.xaxis.title.text == shown.axes[1]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(FigureError, match="no head 2; this gate has heads 0 to 1"):
        gate_map(gate(), 2)
    with pytest.raises(FigureError, match=r"6 positions do not fill a grid of \(3, 3\)"):
        gate_map(gate(), 0, grid=(3, 3))
    with pytest.raises(FigureError, match=r"one item; .* has the batch axes \(2,\)"):
        gate_map(gate(GATE.expand(2, 2, 6)))


def test_pictures_of_a_trace_draw_a_gate_as_a_gate_on_its_grid(tmp_path: Path) -> None:
    trace = trace_of([gate(), gate(GATE / 10)], patches(6, (2, 3)))
    pictures = TracePictures.of(trace)
    assert pictures.is_gated
    drawn = {word: (str(head), shown) for word, head, shown in pictures.maps()}
    assert [head for head, _ in drawn.values()] == ["L1H1", "L0H0"]  # mean sizes 0.1 and 2.5
    shown = drawn["strongest"][1]
    assert isinstance(shown, GateMap)
    assert shown.values.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, -5.0]]
    assert shown.title == "Gate of layer 0, head 0"
    page = write_report(trace, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "How much of itself each position keeps" in page
    assert "Who looks at whom" not in page
    names = [path.name for path in save_figures(trace, tmp_path, dpi=20)]
    assert names == ["map_weakest_L1H1.png", "map_strongest_L0H0.png"]


def test_nothing_is_said_of_how_far_a_gate_looks(tmp_path: Path) -> None:
    trace = trace_of([gate(GATE.abs())], patches(6, (2, 3)))
    assert not TracePictures.of(trace).readings
    page = write_report(trace, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "away on average" not in page


def test_a_stack_of_gates_and_maps_draws_each_layer_as_what_it_is() -> None:
    attention = SoftmaxAttention(torch.zeros(2, 6, 1), torch.zeros(2, 6, 1), causal=False)
    pictures = TracePictures.of(trace_of([gate(), attention], patches(6, (1, 4))))
    assert not pictures.is_gated
    first, second = (pictures.map_of(HeadName(layer, 0), Zoom()) for layer in (0, 1))
    assert isinstance(first, GateMap)
    assert first.caption == "not drawn: 2 before the grid"
    assert isinstance(second, AttentionMap)
