import pytest
import torch

from attnscope.figures import ANCHOR, PREPLAN, FigureError, rhythm_plot
from attnscope.metrics import Reading

MARKS = {PREPLAN: [8], ANCHOR: [7, 9, 99]}


def long_reading(length: int) -> Reading:
    return Reading(
        name="x",
        axes=("query",),
        values=torch.arange(length) / length,
        coordinates={"query": tuple(f"t{i}" for i in range(length))},
    )


def test_both_libraries_draw_the_same_curves_and_marks(
    token_reading: Reading, share_reading: Reading
) -> None:
    entropy = torch.tensor([0.0, 1.0, 2.0, 3.0])
    plot = rhythm_plot(token_reading, share_reading, marks=MARKS, entropy=entropy)
    screen, paper = plot.plotly(), plot.matplotlib()
    curves = [trace for trace in screen.data if trace.mode != "markers"]
    numbers = [token_reading.values, share_reading.values, entropy]
    for curve, axes, values in zip(curves, paper.axes, numbers, strict=True):
        torch.testing.assert_close(torch.tensor(curve.y), values, equal_nan=True)
        drawn = torch.tensor(axes.lines[0].get_ydata())
        torch.testing.assert_close(drawn, values, equal_nan=True)
        assert curve.line.color == axes.lines[0].get_color()
    marks = [trace for trace in screen.data if trace.mode == "markers"]
    assert [trace.name for trace in marks] == ["preplan token", "anchor token"]
    assert [len(trace.y) for trace in marks] == [1, 2]  # position 99 is not shown
    assert [len(axes.collections[0].get_offsets()) for axes in paper.axes[:2]] == [1, 2]
    titles = [screen.layout[name].title.text for name in ("yaxis", "yaxis2", "yaxis3")]
    assert titles == ["WAAD (tokens)", "FAI (share)", "entropy (nats)"]
    assert [axes.get_ylabel() for axes in paper.axes] == titles


def test_marks_stand_on_their_curves(token_reading: Reading, share_reading: Reading) -> None:
    plot = rhythm_plot(token_reading, share_reading, marks=MARKS)
    preplan = plot.panels[0]
    assert preplan.chosen == (1,)
    offsets = plot.matplotlib().axes[0].collections[0].get_offsets().tolist()
    assert offsets == [[8.0, 2.0]]


def test_panels_do_not_overlap(token_reading: Reading, share_reading: Reading) -> None:
    layout = rhythm_plot(token_reading, share_reading).plotly().layout
    assert layout.yaxis.domain[1] == 1
    assert layout.yaxis2.domain[1] < layout.yaxis.domain[0]
    assert layout.yaxis2.domain[0] == pytest.approx(0, abs=1e-9)


def test_tokens_are_escaped_on_the_screen_and_plain_on_paper(
    token_reading: Reading, share_reading: Reading, attack: str
) -> None:
    plot = rhythm_plot(token_reading, share_reading)
    names = list(plot.plotly().data[0].x)
    assert names[0] == "7 The"
    assert not any("<" in name or "$" in name for name in names)
    texts = plot.matplotlib().axes[-1].get_xticklabels()
    assert texts[1].get_text() == attack[:13] + "…"
    assert not texts[3].get_parse_math()


def test_every_token_is_written_while_it_fits() -> None:
    few, many = long_reading(100), long_reading(400)
    assert rhythm_plot(few, few).plotly().layout.xaxis.dtick == 1
    plot = rhythm_plot(many, many, marks={PREPLAN: [100, 300], ANCHOR: []})
    assert plot.plotly().layout.xaxis.dtick is None
    named = [text.get_text() for text in plot.matplotlib().axes[0].texts]
    assert {"t100", "t300"} <= set(named)


def test_readings_of_different_tokens_are_refused(
    token_reading: Reading, head_reading: Reading
) -> None:
    with pytest.raises(FigureError, match=r"the lengths are \{'waad': 4, 'fai': 100\}"):
        rhythm_plot(token_reading, long_reading(100))
    with pytest.raises(FigureError, match="'entropy': 3"):
        rhythm_plot(token_reading, token_reading, entropy=torch.zeros(3))
    with pytest.raises(FigureError, match="'head_span'"):
        rhythm_plot(token_reading, head_reading)
    with pytest.raises(FigureError, match="the lengths are"):
        rhythm_plot(long_reading(0), long_reading(0))
