from itertools import product

import pandas
import pytest
import torch

from attnscope.figures import FigureError, head_flight

STEPS = (0, 16, 32, 48)
CURVES = {  # by layer and head
    (0, 0): (0.0, 0.2, 0.6, 0.7),
    (0, 1): (0.6, 0.1, 0.1, 0.1),
    (3, 0): (0.5, 0.5, 0.5, 0.5),
    (3, 1): (0.1, 0.9, 0.4, 0.9),
}


@pytest.fixture
def table() -> pandas.DataFrame:
    rows = [
        (step, probe, metric, layer, head, value + (probe == "b") * 0.2)
        for probe, metric in product("ab", ("sink_mass", "entropy"))
        for (layer, head), values in CURVES.items()
        for step, value in zip(STEPS, values, strict=True)
    ]
    names = ["step", "probe", "metric", "layer", "head", "value"]
    return pandas.DataFrame(rows, columns=names).sample(frac=1, random_state=0)


def test_a_head_arrives_where_it_begins_to_stay(table):
    flight = head_flight(table, "sink_mass", probe="a", threshold=0.5)
    assert dict(zip(flight.heads, flight.arrivals, strict=True)) == {
        (0, 0): 32,
        (0, 1): None,
        (3, 0): 0,
        (3, 1): 48,
    }
    assert flight.caption == "on 'a'; 3 of 4 heads stay at 0.5 or above"


def test_texts_are_averaged(table):
    flight = head_flight(table, "entropy")
    expected = torch.tensor(list(CURVES.values()), dtype=torch.float64) + 0.1
    torch.testing.assert_close(flight.values, expected)
    assert flight.steps == STEPS
    assert flight.arrivals == (None,) * 4
    assert flight.caption == "mean of 2 texts"


def test_the_table_has_a_row_per_head(table):
    rows = head_flight(table, "sink_mass", probe="a", threshold=0.5).table()
    assert rows["arrival"].isna().tolist() == [False, True, False, False]
    assert rows.loc[0, ["layer", "head", "first", "last"]].tolist() == [0, 0, 0.0, 0.7]


def test_both_libraries_draw_the_same_lines_and_arrivals(table):
    flight = head_flight(table, "sink_mass", probe="a", threshold=0.5)
    screen, axes = flight.plotly(), flight.matplotlib().axes[0]
    lines = [trace for trace in screen.data if trace.mode == "lines"]
    assert [trace.name for trace in lines] == ["L0H0", "L0H1", "L3H0", "L3H1"]
    for trace, drawn in zip(lines, axes.lines, strict=False):
        assert list(trace.y) == list(drawn.get_ydata())
        assert list(trace.x) == list(drawn.get_xdata()) == list(STEPS)
    points = next(trace for trace in screen.data if trace.mode == "markers+text")
    assert list(points.x) == [32, 0, 48]
    assert list(points.customdata) == ["L0H0", "L3H0", "L3H1"]
    assert [line.get_xdata()[0] for line in axes.lines[4:7]] == [32, 0, 48]


def test_what_was_not_recorded_is_named(table):
    with pytest.raises(FigureError, match="no metric 'waad'; it has 'entropy', 'sink_mass'"):
        head_flight(table, "waad")
    with pytest.raises(FigureError, match="no probe 'c'; it has 'a', 'b'"):
        head_flight(table, "entropy", probe="c")
    gap = table.drop(table[(table.step == 16) & (table["head"] == 1)].index)
    with pytest.raises(FigureError, match="not recorded for all heads at all steps"):
        head_flight(gap, "entropy")


def test_an_unknown_number_is_below_every_threshold(table):
    table.loc[(table.step == 48) & (table.layer == 0), "value"] = torch.nan
    flight = head_flight(table, "sink_mass", threshold=0.3)
    assert flight.arrivals == (None, None, 0, 16)
    assert flight.plotly() is not None
