"""The pages where a model learns, is changed, or looks at a picture; and links to their views."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import torch

import attnscope
from attnscope.credit import FlightRecorder, read_flight
from attnscope.figures import head_flight

expect = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is missing").expect

STEPS = (0, 4, 8)
THRESHOLD = "threshold-sink_mass"


@pytest.fixture(scope="module")
def recording(server, model_folder: Path) -> Iterator[Path]:
    """Train the tiny model for eight steps under a flight recorder, which writes to the store."""
    subject = attnscope.load(str(model_folder), device="cpu")
    folder = server.store / "learned"
    recorder = FlightRecorder(
        folder=folder,
        probes={"counting": "zero one two three", "backwards": "three two one zero"},
        processor=subject.tokenizer,
        metrics=("sink_mass", "entropy"),
    )
    model: Any = subject.model
    ids = subject.tokenizer("zero one two three " * 6, return_tensors="pt")["input_ids"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            recorder.record(model, step)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def scenes(server) -> Iterator[Path]:
    """Take the scenes that a test captures out of the store again."""
    yield server.store
    for path in server.store.glob("scene *"):
        path.unlink()


def state(page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def reopened(tab, title: str) -> Any:
    """Open the address that the page has now, as somebody does who was sent it."""
    tab.wait()
    address = tab.page.url.removeprefix(f"{tab.url}/")
    tab.page.goto("about:blank")
    return tab.open(address, title)


def choose(tab, label: str, option: str) -> None:
    """Choose from a menu by keyboard."""
    tab.page.get_by_role("combobox", name=re.compile(label)).first.click()
    tab.page.keyboard.type(option)
    tab.page.keyboard.press("Enter")
    tab.wait()


def load(tab, model: str) -> None:
    """Ask for a model, where no test before has asked for it."""
    button = tab.page.get_by_role("button", name=f"Load {model}")
    controls = tab.page.get_by_text("Most tokens of an answer")
    button.or_(controls).wait_for()
    if button.count():
        button.click()
        controls.wait_for()
    tab.wait()


def cells(page, table: int = -1) -> str:
    """Return the text of a table, as a screen reader finds it below the canvas."""
    found = page.get_by_test_id("stDataFrame").nth(table).locator("td")
    found.first.wait_for(state="attached")
    return " | ".join(found.all_text_contents())


def test_a_training_is_watched_head_by_head(tab, recording):
    page = tab.open("training?recording=learned", "Training")
    choose(tab, "Metric", "sink_mass")
    choose(tab, "Text", "backwards")
    before = float(state(page)[THRESHOLD])
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(f"{THRESHOLD}={before + 0.001:.3f}"))
    own = state(page)
    assert (own["recording"], own["recorded"], own["probe"]) == (
        "learned",
        "sink_mass",
        "backwards",
    )
    table = read_flight(recording)
    threshold = float(own[THRESHOLD])
    flight = head_flight(table, "sink_mass", probe="backwards", threshold=threshold)
    assert any(step is not None for step in flight.arrivals)
    expect(page.locator(".js-plotly-plot").get_by_text(flight.caption)).to_be_visible()
    page = reopened(tab, "Training")
    expect(page.locator(".js-plotly-plot").get_by_text(flight.caption)).to_be_visible()
    assert state(page) == own


def test_a_model_answers_as_it_is_and_changed(tab):
    page = tab.open("interventions?model=glimpse&scene=3&most=12", "Interventions")
    load(tab, "glimpse")
    choose(tab, "Method", "VHR")
    strength = page.get_by_label("Factor")
    strength.fill("6")
    strength.press("Enter")
    tab.wait()
    page.get_by_role("button", name="Generate both ways").click()
    page.get_by_role("heading", name="Side by side").wait_for()
    tab.wait()
    expect(page.get_by_text("As it is, attention entropy")).to_be_visible()
    expect(page.get_by_text("Changed, attention entropy")).to_be_visible()
    expect(page.get_by_text("Not in the picture:")).to_have_count(2)
    assert "Attention to the image" in cells(page)
    page = reopened(tab, "Interventions")
    expect(page.get_by_label("Factor")).to_have_value("6.00")
    expect(page.get_by_role("spinbutton", name="Scene, by its seed")).to_have_value("3")
    assert state(page)["method"] == "vhr"


def test_a_head_is_falsified_beside_random_ones(tab):
    address = "interventions?model=glimpse&does=falsify&scene=3&most=12&layer=2&head=1"
    page = tab.open(address, "Interventions")
    load(tab, "glimpse")
    choose(tab, "Head", "3")
    page.get_by_role("button", name="Falsify L2H3").click()
    page.get_by_role("heading", name="The answer without L2H3").wait_for()
    tab.wait()
    table = cells(page, 0)
    assert table.count("L2H") == 5
    assert table.count("random") == 4
    assert "L2H3 | asked about" in table
    expect(page.get_by_text("Without it the answer's log-probability moves by")).to_be_visible()
    page = reopened(tab, "Interventions")
    expect(page.get_by_role("button", name="Falsify L2H3")).to_be_visible()


def test_a_token_looks_at_the_picture_in_four_ways(tab, scenes):
    page = tab.open("image?trace=a.safetensors", "Image")
    expect(page.get_by_text("no picture in this trace")).to_be_visible()
    page.get_by_text("Capture a scene of glimpse").click()
    page.get_by_role("button", name="Capture the scene").click()
    page.get_by_text("The answer, by what each prediction gives").wait_for()
    tab.wait()
    answer = page.locator(".attnscope-ribbon")
    expect(answer).to_contain_text(re.compile(r"✗\s*made up"))
    expect(answer).to_contain_text(re.compile(r"●\s*in the picture"))
    plots = page.locator(".js-plotly-plot")
    expect(plots).to_have_count(4)
    for title in ("Attention mass", "Saliency", "Chefer relevance", "Visual sinks"):
        expect(plots.get_by_text(title, exact=True)).to_be_visible()
    trace = attnscope.open_trace(next(scenes.glob("scene *")))
    place = trace.segments["response"][4]
    word = trace.tokens[place]
    choose(tab, "Token", f"{place} {word}")
    expect(plots.get_by_text(word, exact=True).first).to_be_visible()
    page.get_by_text("Of one head").click()
    tab.wait()
    choose(tab, "Head", "2")
    expect(plots.get_by_text(f"{word} of L0H2", exact=True)).to_be_visible()
    page = reopened(tab, "Image")
    expect(plots.get_by_text(f"{word} of L0H2", exact=True)).to_be_visible()
    assert state(page)["token"] == str(place)
