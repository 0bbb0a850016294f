import json
from pathlib import Path
from typing import Any

import pytest

from attnscope.app.map_choice import HeadGroup, MapChoice
from attnscope.attention import AttentionOperator
from attnscope.traces import Trace, open_trace


def facts_of(page: Any) -> dict[str, Any]:
    """Return the facts of the packet that the page sends to the map."""
    (canvas,) = (block for block in page.get("bidi_component"))
    content = canvas.proto.bytes
    return json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])


def test_the_map_of_a_head_is_shown_with_its_strongest_cells(open_page, store: Path) -> None:
    page = open_page("attention_map", trace="a.safetensors", layer=1, head=2)
    assert page.subheader[0].value == "Attention of layer 1, head 2"
    trace: Trace = open_trace(store / "a.safetensors")
    operator: AttentionOperator = trace.attention[1]
    pattern = operator.dense()[2]
    table = page.dataframe[0].value
    assert table.iloc[0, 2] == pytest.approx(float(pattern.max()))
    query, key = divmod(int(pattern.argmax()), pattern.shape[1])
    assert table["query"][0].startswith(f"{query} ")
    assert table["key"][0].startswith(f"{key} ")
    facts = facts_of(page)
    assert (facts["queries"], facts["offset"]) == (len(trace.tokens), 0)
    assert "Strongest" in facts["words"]


def test_a_link_opens_a_part_of_the_map(open_page) -> None:
    page = open_page("attention_map", trace="a.safetensors", view="5-9-0-4")
    assert facts_of(page)["view"] == [5, 9, 0, 4]
    assert len(page.dataframe[0].value) == 10
    assert page.query_params["view"] == "5-9-0-4"


def test_a_link_that_names_no_part_opens_the_whole_map(open_page) -> None:
    page = open_page("attention_map", trace="a.safetensors", view="some-thing")
    facts = facts_of(page)
    assert facts["view"] == [0, facts["queries"], 0, facts["keys"]]
    assert "view" not in page.query_params


def test_heads_are_averaged_and_subtracted(open_page) -> None:
    page = open_page("attention_map", trace="a.safetensors", layer=0, head=1, minus="true")
    page.multiselect(key="group").set_value([3]).run()
    assert not page.exception
    assert page.subheader[0].value == "Attention of layer 0, mean of heads 1, 3 − layer 0, head 1"  # noqa: RUF001
    facts = facts_of(page)
    assert facts["scale"]["low"] == -facts["scale"]["high"]
    page.selectbox(key="other").set_value("b.safetensors").run()
    assert "b: layer 0" in page.subheader[0].value


def test_gradients_are_offered_where_there_are_any(open_page) -> None:
    page = open_page("attention_map", trace="a.safetensors")
    assert page.selectbox(key="shows").options == ["attention"]


def test_colors_follow_what_is_chosen(open_page) -> None:
    page = open_page("attention_map", trace="a.safetensors", colors="linear", contrast=10)
    scale = facts_of(page)["scale"]
    assert not scale["logarithmic"]
    assert scale["low"] == 0
    assert scale["high"] <= 0.1


def test_the_key_of_a_map_tells_all_maps_apart() -> None:
    def choice(quantity: str = "attention", **facts: Any) -> MapChoice:
        own = {"path": Path("a.safetensors"), "stack": "s", "layer": 0, "heads": (0,)} | facts
        return MapChoice(quantity=quantity, heads=HeadGroup(**own))

    minus = MapChoice(quantity="attention", heads=choice().heads, minus=choice(layer=1).heads)
    keys = [
        choice().key,
        choice("gradient").key,
        choice(stack="t").key,
        choice(layer=1).key,
        choice(heads=(0, 1)).key,
        minus.key,
    ]
    assert len(set(keys)) == len(keys)
    assert choice(heads=(1, 0)).key == choice(heads=(0, 1)).key
