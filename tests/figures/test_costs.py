import pytest

from attnscope.figures import FigureError, cost_curves

LINE = [(100, 2.0), (10, 0.2), (1000, 20.0)]


def test_growth_is_the_power_of_the_length():
    curves = cost_curves({"line": LINE, "square": [(10, 1.0), (1000, 1e4)]}, label="ms")
    assert curves.growth == {"line": 1.0, "square": 2.0}
    assert curves.caption == "line: as T^1 at last; square: as T^2 at last"


def test_both_libraries_draw_the_points_in_order():
    curves = cost_curves({"line": LINE}, label="time (ms)")
    (drawn,) = curves.plotly().data
    (line,) = curves.matplotlib().axes[0].lines
    assert list(drawn.x) == list(line.get_xdata()) == [10, 100, 1000]
    assert list(drawn.y) == list(line.get_ydata()) == [0.2, 2.0, 20.0]
    assert curves.table().to_dict("list") == {
        "what": ["line"] * 3,
        "tokens": [10, 100, 1000],
        "time (ms)": [0.2, 2.0, 20.0],
    }


@pytest.mark.parametrize(
    "points", [[], [(10, 1.0)], [(10, 1.0), (10, 2.0)], [(10, 0.0), (20, 1.0)]]
)
def test_a_curve_needs_positive_costs_at_two_lengths(points):
    with pytest.raises(FigureError, match="the curve of 'it' needs positive costs at two lengths"):
        cost_curves({"it": points}, label="ms")
