"""What goes into the store and out of it: uploads, live captures, deletions, downloads."""

import csv
import re
import shutil
from collections.abc import Iterator

import pytest

from attnscope.traces import TraceStore, open_trace

expect = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is missing").expect


def upload(page, name: str, content: bytes) -> None:
    page.get_by_role("tab", name="Upload").click()
    payload = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.locator("input[type=file]").set_input_files(payload)
    expect(page.get_by_text(name).first).to_be_visible()
    page.get_by_role("button", name="Add to the store").click()


def test_an_upload_that_is_no_trace_is_a_message_and_the_page_goes_on(tab, server):
    page = tab.open("", "Overview")
    upload(page, "noise.safetensors", b"noise" * 100)
    expect(page.get_by_test_id("stAlert").first).to_be_visible()
    expect(page.get_by_test_id("stAlert").first).to_contain_text("noise.safetensors")
    assert not (server.store / "uploads" / "noise.safetensors").exists()
    page.get_by_label("Find traces").fill("a.safe")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 3 traces")).to_be_visible()


def test_a_cut_off_trace_is_refused(tab, server):
    content = (server.store / "a.safetensors").read_bytes()
    page = tab.open("", "Overview")
    upload(page, "cut.safetensors", content[: len(content) // 2])
    expect(page.get_by_test_id("stAlert").first).to_contain_text("cut.safetensors")
    assert not (server.store / "uploads" / "cut.safetensors").exists()


def test_a_trace_is_uploaded_and_deleted_after_a_question(tab, server):
    content = (server.store / "a.safetensors").read_bytes()
    page = tab.open("?find=new-one", "Overview")
    upload(page, "new-one.safetensors", content)
    expect(page.get_by_text("1 of 4 traces")).to_be_visible()
    path = server.store / "uploads" / "new-one.safetensors"
    assert path.read_bytes() == content
    tab.wait()
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 15, box["y"] + 52)
    page.get_by_role("button", name="Delete").first.click()
    expect(page.get_by_text("gone for good?")).to_be_visible()
    assert path.exists()
    page.get_by_role("button", name="Delete 1").click()
    expect(page.get_by_text("of 3 traces")).to_be_visible()
    assert not path.exists()


def test_typed_text_becomes_a_trace(tab, server):
    page = tab.open("?find=typed", "Overview")
    page.get_by_label("Text", exact=True).fill("zero one two three")
    page.get_by_label("Name of the trace").fill("typed")
    page.get_by_role("button", name="Capture", exact=True).click()
    expect(page.get_by_text("captured: typed.safetensors")).to_be_visible()
    path = server.store / "typed.safetensors"
    assert open_trace(path).tokens == ("zero", "one", "two", "three")
    path.unlink()


def test_a_table_is_downloaded(tab, server):
    page = tab.open("rhythm?trace=a.safetensors", "Rhythm")
    page.locator(".st-key-download-rhythm button").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    with download.value.path().open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    trace = open_trace(server.store / "a.safetensors")
    assert [int(row["position"]) for row in rows] == trace.segments["response"]
    with page.expect_download() as picture:
        page.get_by_role("button", name="PNG", exact=True).click()
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def indexed(server) -> Iterator[TraceStore]:
    """Make the folder a store of one trace more, and a plain folder again."""
    store = TraceStore(server.store)
    store.add(open_trace(server.store / "a.safetensors"), name="indexed")
    yield store
    for name in ("index", "traces"):
        shutil.rmtree(server.store / name)
    (server.store / "attnscope-store.json").unlink()


def test_a_trace_gets_a_tag_and_is_found_by_it(tab, indexed):
    page = tab.open("?find=indexed", "Overview")
    expect(page.get_by_text("1 of 4 traces")).to_be_visible()
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 15, box["y"] + 52)
    page.get_by_role("button", name="Tags").click()
    page.get_by_role("combobox", name=re.compile("Give")).click()
    page.keyboard.type("remarkable")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Change the tags").click()
    expect(page.get_by_text("tags changed: indexed")).to_be_visible()
    assert indexed.index()["tags"].to_pylist() == [["remarkable"]]
    page.get_by_label("Find traces").fill("remarkable")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 4 traces")).to_be_visible()
