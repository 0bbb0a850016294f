"""The map in a browser: wheel, hand, keys and links."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attnscope.attention import AttentionOperator, SoftmaxAttention
from attnscope.traces import Observation, Site, TokenSequence, Trace, open_trace

LENGTH, SINK = 3000, 1001


@pytest.fixture
def long_trace(server) -> Iterator[Path]:
    """Put a trace whose coarse levels need a pass into the store, with one column that all read."""
    generator = torch.Generator().manual_seed(0)
    query, key = 0.1 * torch.randn(2, 1, LENGTH, 4, generator=generator)
    query[..., 0] = 8.0
    key[:, SINK, 0] = 8.0
    text = TokenSequence(name="text", tokens=tuple(f"<i>{place}" for place in range(LENGTH)))
    seen = Observation(
        site=Site(stack="layers", layer=0, path="layers.0"),
        attention=SoftmaxAttention(query, key),
        queries=text,
        keys=text,
    )
    path = server.store / "long.safetensors"
    Trace(observations=[seen], sequences={"text": text}, main_sequence="text").save(path)
    yield path
    path.unlink()


def ready(page: Any) -> dict[str, str]:
    """Return what the map says of itself once it shows all that its view needs."""
    found = page.locator(".map[data-state=ready]")
    found.wait_for()
    return dict(found.evaluate("map => ({...map.dataset})"))


def seen(page: Any) -> tuple[int, ...]:
    return tuple(map(int, ready(page)["view"].split()))


def reading(page: Any) -> str:
    """Return what is told of the cell under the pointer, once anything is."""
    found = page.locator(".reading").filter(has_text="→")
    found.wait_for()
    return found.inner_text()


def point(page: Any, right: float, down: float) -> None:
    """Move the pointer to a share of the map's width and height."""
    box = page.locator(".map canvas").bounding_box()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"])


def test_wheel_keys_buttons_and_hand_move_the_map(tab) -> None:
    page = tab.open("attention_map?trace=a.safetensors&layer=1&head=2", "Map")
    whole = seen(page)
    point(page, 0.5, 0.5)
    page.mouse.wheel(0, -300)
    closer = seen(page)
    assert closer[1] - closer[0] < whole[1] - whole[0]
    page.mouse.down()
    point(page, 0.6, 0.7)
    page.mouse.up()
    dragged = seen(page)
    assert dragged[0] < closer[0]
    assert dragged[2] < closer[2]
    page.locator(".map canvas").focus()
    page.keyboard.press("ArrowDown")
    assert seen(page)[0] > dragged[0]
    page.keyboard.press("0")
    assert seen(page) == whole
    page.get_by_role("button", name="Zoom in").click()
    assert seen(page) != whole
    page.get_by_role("button", name="Whole map").click()
    assert seen(page) == whole


def test_a_cell_tells_its_tokens_and_its_value(tab, server) -> None:
    page = tab.open("attention_map?trace=a.safetensors&layer=1&head=2&view=18-22-6-10", "Map")
    ready(page)
    point(page, 0.5, 0.5)
    told = re.fullmatch(r"query (\d+) (\w+) → key (\d+) (\w+): (.+)", reading(page))
    assert told is not None
    query, key = int(told[1]), int(told[3])
    trace: Trace = open_trace(server.store / "a.safetensors")
    assert (told[2], told[4]) == (trace.tokens[query], trace.tokens[key])
    operator: AttentionOperator = trace.attention[1]
    value = float(operator.select_heads([2]).tile([query], [key]))
    assert float(told[5]) == pytest.approx(value, rel=0.006)  # three digits are shown


def test_one_column_is_seen_from_the_whole_text_down_to_its_token(tab, long_trace: Path) -> None:
    page = tab.open(f"attention_map?trace={long_trace.name}", "Map")
    page.get_by_text("Computing the coarse levels").wait_for(state="hidden")
    first = ready(page)
    assert (first["level"], seen(page)) == ("3", (0, LENGTH, 0, LENGTH))
    rows = page.get_by_role("application").get_attribute("aria-label")
    assert f"keys 0 to {LENGTH - 1}" in rows
    assert "to key 1000–1007" in rows  # noqa: RUF001
    for view, level in (("1500-1900-800-1200", "0"), ("1800-1810-996-1006", "0")):
        page = tab.open(f"attention_map?trace={long_trace.name}&view={view}", "Map")
        assert ready(page)["level"] == level
        words = page.get_by_role("application").get_attribute("aria-label")
        assert f"to key {SINK} <i>{SINK}." in words
        top, bottom, left, right = map(int, view.split("-"))
        shown = seen(page)
        assert (shown[0] <= top, shown[1] >= bottom) == (True, True)
        assert (shown[2] <= left, shown[3] >= right) == (True, True)
    assert long_trace.with_suffix(".pyramids").is_dir()


def test_a_change_of_reduction_keeps_the_view(tab, long_trace: Path) -> None:
    page = tab.open(f"attention_map?trace={long_trace.name}&view=1000-2000-500-1500", "Map")
    before = seen(page)
    page.get_by_role("radio", name="mean").or_(page.get_by_role("button", name="mean")).click()
    page.get_by_text("mean over").wait_for()
    assert seen(page) == before
