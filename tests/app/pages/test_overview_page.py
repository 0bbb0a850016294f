import shutil

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.library import Library
from attnscope.app.pages.overview import holds_words, store_table
from attnscope.metrics import measure
from attnscope.traces import TraceStore, open_trace, reduce


def names(page: AppTest) -> list[str]:
    return page.dataframe[0].value["trace"].tolist()


def test_the_store_is_a_table_told_from_headers(open_page, store):
    page = open_page("overview")
    assert names(page) == ["a.safetensors", "b.safetensors", "older/plain.safetensors"]
    row = page.dataframe[0].value.iloc[0]
    trace = open_trace(store / "a.safetensors")
    assert (row["tokens"], row["response"]) == (len(trace.tokens), len(trace.segments["response"]))
    assert (row["layers"], row["heads"]) == (3, 4)


def test_a_file_that_is_no_trace_is_named_with_the_reason(open_page):
    page = open_page("overview")
    assert any("1 files" in box.label for box in page.expander)
    assert any("weights.safetensors" in line.value for line in page.text)


def test_traces_are_found_by_token_model_and_name(open_page, store, model_folder):
    assert names(open_page("overview", find="plain")) == ["older/plain.safetensors"]
    assert len(names(open_page("overview", find="qwen3 seven"))) == 3
    assert names(open_page("overview", find="no-such-word")) == []
    (first, *_), _ = Library(store).survey()
    assert holds_words(first, "three SEVEN")
    assert not holds_words(first, "three eleven")
    assert len(store_table([first])) == 1


def test_an_empty_store_says_what_to_do(open_page, tmp_path):
    page = open_page("overview", at=tmp_path / "none")
    assert any("empty" in box.value for box in page.info)
    assert any("no trace yet" in box.value for box in open_page("rhythm", at=tmp_path).info)


def test_typed_text_is_captured_and_joins_the_store(open_page, model_folder, tmp_path):
    page = open_page("overview", at=tmp_path, models=f'["{model_folder}"]')
    assert page.selectbox[0].options == [str(model_folder), "countdown", "glimpse"]
    page.text_area[0].set_value("zero one")
    page.number_input[0].set_value(3)
    page.button[0].click().run()
    assert not page.error, page.error
    (name,) = names(page)
    trace = open_trace(tmp_path / name)
    assert trace.tokens[:2] == ("zero", "one")
    assert len(trace.segments["response"]) == 3
    assert "captured" in page.success[0].value


def test_what_cannot_be_captured_is_said_and_the_page_goes_on(open_page, model_folder, tmp_path):
    page = open_page("overview", at=tmp_path, models=f'["{model_folder}"]')
    page.button[0].click().run()
    assert "the text is empty" in page.error[0].value
    page.text_area[0].set_value("one " * 400)
    page.button[0].click().run()
    assert "at most 256" in page.error[0].value
    page.text_area[0].set_value("one")
    page.text_area[1].set_value("two")
    page.number_input[0].set_value(3)
    page.button[0].click().run()
    assert "the response is given" in page.error[0].value
    assert not page.exception


def test_a_missing_model_is_a_message(open_page, tmp_path):
    page = open_page("overview", at=tmp_path, models='["./nowhere"]')
    page.text_area[0].set_value("one")
    page.button[0].click().run()
    assert "nowhere" in page.error[0].value


def test_a_damaged_trace_is_listed_and_refused_with_a_message(open_page, store, tmp_path):
    content = (store / "a.safetensors").read_bytes()
    shutil.copy(store / "b.safetensors", tmp_path / "b.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    page = open_page("overview", at=tmp_path)
    assert names(page) == ["b.safetensors"]
    assert any("cut.safetensors" in line.value for line in page.text)


def select(page: AppTest, *rows: int) -> AppTest:
    page.session_state["store"] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    return page.run()


@pytest.fixture
def indexed(store, tmp_path):
    """Return a store with two traces in its index, and one file beside it."""
    trace = open_trace(store / "a.safetensors")
    for name in ("first", "second"):
        TraceStore(tmp_path).add(trace, name=name, tags=["new"])
    shutil.copy(store / "b.safetensors", tmp_path / "beside.safetensors")
    return tmp_path


def test_tags_are_changed_in_the_page(open_page, indexed):
    page = select(open_page("overview", at=indexed), 0, 1)
    page.multiselect(key="tags given").set_value(["read"])
    page.multiselect(key="tags taken").set_value(["new"])
    next(button for button in page.button if button.label == "Change the tags").click().run()
    assert not page.exception
    assert "first, second" in page.success[0].value
    assert [list(tags) for tags in page.dataframe[0].value["tags"]] == [["read"], ["read"], []]
    assert names(open_page("overview", at=indexed, find="read")) == ["first", "second"]


def test_a_tag_that_is_none_is_a_message(open_page, indexed):
    page = select(open_page("overview", at=indexed), 0)
    page.multiselect(key="tags given").set_value(["x" * 100])
    next(button for button in page.button if button.label == "Change the tags").click().run()
    assert "is no tag" in page.error[0].value
    assert not page.exception


def test_a_file_beside_the_index_has_no_tags_and_the_page_says_so(open_page, indexed):
    page = select(open_page("overview", at=indexed), 0, 2)
    assert any("no tags here" in text.value for text in page.caption)
    assert len(page.multiselect) == 0


@pytest.fixture(scope="module")
def kept(store, tmp_path_factory):
    """Return a store with a whole trace, and one that keeps readings alone."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copy(store / "b.safetensors", folder / "b.safetensors")
    trace = open_trace(store / "a.safetensors")
    readings = [measure(trace, name) for name in ("head_span", "entropy", "local_waad")]
    reduce(trace, readings=readings, readings_only=True).save(folder / "a.safetensors")
    return folder


def test_a_trace_of_readings_alone_is_listed_and_shown(open_page, kept):
    page = select(open_page("overview", at=kept), 0)
    assert not page.exception
    assert names(page) == ["a.safetensors", "b.safetensors"]
    assert page.dataframe[0].value["layers"].tolist() == [0, 3]
    assert "keeps no attention" in page.info[0].value
    shown = page.selectbox(key="kept reading")
    assert shown.options == ["head_span", "entropy", "local_waad"]
    assert len(page.get("plotly_chart")) == 1
    shown.set_value("local_waad").run()
    assert not page.exception
    assert any("attnscope-ribbon" in block.value for block in page.get("html"))


@pytest.mark.parametrize("name", ["rhythm", "heads", "attention_map", "image", "compare"])
def test_a_page_that_needs_attention_says_that_there_is_none(open_page, kept, name):
    page = open_page(name, at=kept, trace="a.safetensors")
    assert "keeps no attention, which this page needs" in page.info[0].value
    assert not page.error


def test_neither_a_second_trace_nor_a_response_needs_to_be_guessed(open_page, kept):
    page = open_page("compare", at=kept, trace="b.safetensors", other="a.safetensors")
    assert "keeps no attention" in page.info[0].value
    page = open_page("credit", at=kept)
    assert page.multiselect[0].options == ["b.safetensors"]
    assert any("1 responses are left out" in text.value for text in page.caption)
