"""Every page in a browser, on real traces: opened, its main control used, what appears checked."""

import re
from urllib.parse import parse_qs, urlparse

import pytest

from attnscope.app.workbench import PAGES

expect = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is missing").expect

CELL = """([row, column]) => {
  const plot = document.querySelector('.st-key-heads-grid .js-plotly-plot');
  const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
  return [box.left + xaxis._offset + xaxis.c2p(column), box.top + yaxis._offset + yaxis.c2p(row)];
}"""
TOKEN = """(place) => {
  const plot = document.querySelector('.st-key-rhythm .js-plotly-plot');
  const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
  const unseen = plot.data.find((series) => series.customdata);
  const y = plot._fullData.find((series) => series.customdata).y[place];
  const x = xaxis._offset + xaxis.c2p(place);
  return [box.left + x, box.top + yaxis._offset + yaxis.c2p(y), Number(unseen.customdata[place])];
}"""


def state(page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def test_every_page_opens_from_the_menu(tab):
    page = tab.open("", "Overview")
    links = page.get_by_test_id("stSidebarNavLink")
    expect(links).to_have_count(len(PAGES))
    for _, title, _ in PAGES[1:]:
        links.filter(has_text=title).click()
        tab.settle(title)
        expect(page.get_by_test_id("stException")).to_have_count(0)
        expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)


def test_every_picture_has_words(tab):
    page = tab.open("heads", "Heads")
    plots = page.locator(".js-plotly-plot .main-svg").first
    plots.wait_for()
    labels = page.get_by_label(re.compile(r"Head span of 12 heads: from .* to .*"))
    expect(labels.first).to_be_visible()


def test_a_word_narrows_the_store(tab):
    page = tab.open("", "Overview")
    expect(page.get_by_text("3 of 3 traces")).to_be_visible()
    page.get_by_label("Find traces").fill("b.safe")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 3 traces")).to_be_visible()
    assert state(page)["find"] == "b.safe"


def test_a_click_on_a_token_shows_whom_it_reads(tab):
    page = tab.open("rhythm?trace=b.safetensors", "Rhythm")
    page.locator(".st-key-rhythm .js-plotly-plot .main-svg").first.wait_for()
    x, y, position = page.evaluate(TOKEN, 5)
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    expect(page.get_by_role("heading", name=re.compile(rf"^Token {position}:"))).to_be_visible()
    expect(page.get_by_text("Whom it reads").first).to_be_visible()
    page.wait_for_url(re.compile(rf"token={position}\b"))


def test_a_token_can_be_chosen_by_keyboard_alone(tab):
    page = tab.open("rhythm?trace=b.safetensors", "Rhythm")
    page.get_by_label(re.compile("^Token, by its position")).first.focus()
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^Token 9:"))).to_be_visible()
    page.get_by_role("radio", name="global heads").or_(
        page.get_by_role("button", name="global heads")
    ).first.click()
    tab.wait()
    assert state(page)["token"] == "9"


def test_a_click_on_a_cell_opens_its_head(tab):
    page = tab.open("heads?trace=a.safetensors", "Heads")
    page.locator(".st-key-heads-grid .js-plotly-plot .main-svg").first.wait_for()
    x, y = page.evaluate(CELL, [2, 1])
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    expect(page.get_by_role("heading", name="Head L2H1")).to_be_visible()
    page.wait_for_url(re.compile("layer=2"))
    own = state(page)
    assert (own["trace"], own["layer"], own["head"]) == ("a.safetensors", "2", "1")


def test_a_link_opens_the_same_view_and_the_trace_stays_from_page_to_page(tab):
    page = tab.open("heads?trace=b.safetensors&layer=1&head=2&metric=entropy", "Heads")
    expect(page.get_by_role("heading", name="Head L1H2")).to_be_visible()
    expect(page.get_by_text("Attention entropy of 12 heads").last).to_be_visible()
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Compare").click()
    tab.settle("Compare")
    assert state(page)["trace"] == "b.safetensors"


def test_heads_are_found_by_words(tab):
    page = tab.open("heads", "Heads")
    page.get_by_label("Find heads").fill("first-token sinks")
    page.keyboard.press("Enter")
    expect(page.get_by_text("attention to the sink", exact=True).first).to_be_visible()


def test_two_traces_are_compared(tab):
    page = tab.open("compare?trace=a.safetensors&other=c.safetensors", "Compare")
    expect(page.get_by_text("17 tokens stand in both")).to_be_hidden()
    expect(page.get_by_text("14 tokens stand in both")).to_be_visible()
    page.get_by_role("tab", name="Head by head").click()
    expect(page.locator(".st-key-grid-difference .js-plotly-plot").first).to_be_visible()


def test_credit_follows_the_rule(tab):
    page = tab.open("credit?trace=a.safetensors&rule=global", "Credit")
    expect(page.get_by_text("Weight of each token")).to_be_visible()
    expect(page.get_by_text("introductory")).to_have_count(0)


def test_a_mechanism_is_chosen(tab):
    page = tab.open("mechanisms", "Mechanisms")
    page.get_by_role("combobox").first.click()
    page.keyboard.type("ULSAM")
    page.keyboard.press("Enter")
    tab.wait()
    expect(page.get_by_text("one spatial map per subspace").first).to_be_visible()


def test_the_map_page_draws_its_canvas(tab):
    page = tab.open("attention_map?trace=a.safetensors", "Map")
    expect(page.locator("canvas").first).to_be_visible()
