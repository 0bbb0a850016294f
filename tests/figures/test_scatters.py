from dataclasses import replace

import pytest
import torch

from attnscope.figures import GLOBAL, LOCAL, FigureError, head_scatter
from attnscope.metrics import Reading, head_groups


@pytest.fixture
def entropy(head_reading: Reading) -> Reading:
    values = torch.tensor([[0.1, 2.0, 1.0], [0.2, 3.0, torch.nan]])
    return replace(head_reading, name="entropy", title="Entropy", unit="nats", values=values)


def test_both_libraries_draw_the_same_points(head_reading: Reading, entropy: Reading) -> None:
    scatter = head_scatter(head_reading, entropy, groups=head_groups(head_reading.values, 0.2))
    screen, axes = scatter.plotly(), scatter.matplotlib().axes[0]
    series = [trace for trace in screen.data if trace.x[0] is not None]
    for trace, drawn in zip(series, axes.collections, strict=True):
        points = torch.tensor([list(pair) for pair in zip(trace.x, trace.y, strict=True)])
        torch.testing.assert_close(torch.tensor(drawn.get_offsets().filled()).float(), points)
        assert drawn.get_array().tolist() == list(trace.marker.color)  # the layer
        assert drawn.get_clim() == (screen.layout.coloraxis.cmin, screen.layout.coloraxis.cmax)
    assert screen.layout.xaxis.title.text == axes.get_xlabel() == "Head span (tokens)"
    assert screen.layout.yaxis.title.text == axes.get_ylabel() == "Entropy (nats)"
    assert tuple(screen.layout.xaxis.range) == pytest.approx(axes.get_xlim())


def test_groups_are_told_by_shape_and_ring(head_reading: Reading, entropy: Reading) -> None:
    groups = head_groups(head_reading.values, 0.2)
    scatter = head_scatter(head_reading, entropy, groups=groups)
    roles = dict(zip(scatter.names, scatter.roles, strict=True))
    assert roles["L9H0"] == LOCAL
    assert roles["L9H1"] == GLOBAL
    legend = [trace.name for trace in scatter.plotly().data if trace.showlegend is not False]
    assert legend == ["other head", "local head", "global head"]
    (box,) = scatter.matplotlib().legends
    assert [text.get_text() for text in box.get_texts()] == legend


def test_heads_without_both_numbers_are_left_out_and_counted(
    head_reading: Reading, entropy: Reading
) -> None:
    scatter = head_scatter(head_reading, entropy)
    assert scatter.names == ("L4H0", "L4H1", "L9H0", "L9H1")
    assert scatter.caption == "2 heads without both numbers are left out"


def test_heads_are_named_while_they_are_few(head_reading: Reading, entropy: Reading) -> None:
    scatter = head_scatter(head_reading, entropy)
    assert set(scatter.plotly().data[0].text) == set(scatter.names)
    assert list(scatter.plotly().data[0].customdata) == list(scatter.names)
    many = Reading(name="x", values=torch.rand(20, 20), axes=("layer", "head"))
    crowd = head_scatter(many, many)
    assert set(crowd.plotly().data[0].text) == {""}
    assert len(crowd.plotly().data[0].customdata) == 400


def test_nothing_known_still_draws(head_reading: Reading) -> None:
    nothing = replace(head_reading, values=torch.full((2, 3), torch.nan))
    scatter = head_scatter(nothing, nothing)
    assert scatter.names == ()
    scatter.plotly()
    scatter.matplotlib()


def test_readings_of_different_heads_are_refused(
    head_reading: Reading, token_reading: Reading
) -> None:
    with pytest.raises(FigureError, match=r"head_scatter shows .* \('layer', 'head'\); 'waad' has"):
        head_scatter(head_reading, token_reading)
    fewer = head_reading.select(head=[0, 1])
    with pytest.raises(FigureError, match=r"'head_span' has \(2, 3\), 'head_span' \(2, 2\)"):
        head_scatter(head_reading, fewer)
