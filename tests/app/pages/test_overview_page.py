import shutil

from streamlit.testing.v1 import AppTest

from attnscope.app.library import Library
from attnscope.app.pages.overview import holds_words, store_table
from attnscope.traces import open_trace


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
