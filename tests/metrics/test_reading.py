"""Readings: selection, means, tables and what they say of themselves."""

from typing import Any

import pytest
import torch

from attnscope.metrics import MetricError, Reading
from tests.metrics.patterns import NAN, close


def reading(**changes: Any) -> Reading:
    facts: dict[str, Any] = {
        "name": "waad",
        "title": "Windowed <distance>",
        "unit": "tokens",
        "bounds": (0.0, 10.0),
        "paper": "Someone 2025",
        "axes": ("layer", "head", "query"),
        "values": torch.arange(12.0).reshape(2, 2, 3),
        "coordinates": {"layer": (4, 9), "head": (0, 1), "query": ("a", " b", "a")},
        "options": {"window": 10},
        "stack": "layers",
    }
    return Reading(**(facts | changes))


def test_layers_and_heads_are_selected_by_number() -> None:
    chosen = reading().select(layer=9, head=[1])
    assert chosen.axes == ("head", "query")
    assert chosen.values.tolist() == [[9.0, 10.0, 11.0]]
    assert chosen.coordinates == {"head": (1,), "query": ("a", " b", "a")}
    assert chosen.name == "waad"
    assert chosen.options == {"window": 10}


def test_tokens_are_selected_by_position_and_keep_it() -> None:
    chosen = reading().select(layer=4, query=range(1, 3)).select(query=[2])
    assert chosen.values.tolist() == [[2.0], [5.0]]
    assert chosen.coordinates["query"] == ("a",)
    assert chosen.positions == {"query": (2,)}
    assert chosen.select(query=2).values.tolist() == [2.0, 5.0]
    assert chosen.select(query=2).positions == {}


def test_negative_numbers_count_from_the_end() -> None:
    assert reading().select(layer=-1, head=-2, query=-1).values.tolist() == 8.0
    swapped = reading().select(layer=[-1, -2])
    assert swapped.coordinates["layer"] == (9, 4)
    assert swapped.positions == {}


def test_means_leave_out_what_is_undefined() -> None:
    values = torch.tensor([[1.0, NAN], [3.0, NAN]])
    mean = reading(values=values, axes=("head", "key"), coordinates={}).mean("head")
    assert mean.axes == ("key",)
    close(mean.values, [2.0, NAN])
    assert reading().mean("layer", "query").values.tolist() == [4.0, 7.0]
    assert reading().mean().axes == reading().axes


def test_the_table_has_a_row_per_value_with_numbers_and_texts() -> None:
    table = reading().select(query=[1, 2]).to_pandas()
    assert list(table.columns) == ["layer", "head", "query", "query_text", "waad"]
    assert len(table) == 8
    row = table.iloc[5]
    assert row.tolist() == [9, 0, 2, "a", 8.0]


def test_a_table_of_one_number_has_one_row() -> None:
    table = reading(values=torch.tensor(2.0).bfloat16(), axes=(), coordinates={}).to_pandas()
    assert table.to_dict("list") == {"waad": [2.0]}


def test_says_what_it_is() -> None:
    assert repr(reading()) == "Reading(waad: layer 2, head 2, query 3; 0 to 11 tokens)"
    undefined = reading(values=torch.full((1,), NAN), axes=("key",), coordinates={}, unit="")
    assert repr(undefined) == "Reading(waad: key 1; undefined everywhere)"
    page = reading()._repr_html_()
    for text in ("Windowed &lt;distance&gt;", "0 to 10", "window = 10", "Someone 2025", "layers"):
        assert text in page


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"token": 0}, r"waad has no axis 'token'; it has \('layer', 'head', 'query'\)"),
        ({"layer": 5}, r"waad has no layer 5; it has \[4, 9\]"),
        ({"query": 3}, r"waad has no query 3; it has \[0, 1, 2\]"),
        ({"layer": -3}, "waad has no layer -3"),
    ],
)
def test_refuses_to_select_what_is_not_there(chosen: dict[str, int], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        reading().select(**chosen)


def test_long_axes_are_not_spelled_out() -> None:
    long = reading(values=torch.zeros(40), axes=("query",), coordinates={})
    with pytest.raises(MetricError, match="has no query 40; it has 0 to 39"):
        long.select(query=40)


def test_refuses_parts_that_do_not_fit() -> None:
    with pytest.raises(MetricError, match=r"has the axes \('layer',\), its values the shape"):
        reading(axes=("layer",))
    with pytest.raises(MetricError, match=r"has 1 coordinates along 'head' of axes"):
        reading(coordinates={"head": (0,)})
