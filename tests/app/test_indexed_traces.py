"""A folder that is a store is listed by its index, and what lies beside by its headers."""

import pytest

from attnscope.app.library import Library, LibraryError
from attnscope.traces import TraceStore, open_trace


@pytest.fixture
def library(trace_file, tmp_path):
    trace = open_trace(trace_file)
    store = TraceStore(tmp_path)
    for name in ("first", "second"):
        store.add(trace, name=name, tags=["mine"])
    (tmp_path / "beside.safetensors").write_bytes(trace_file.read_bytes())
    return Library(tmp_path)


def test_a_store_is_listed_by_its_index_without_opening_a_trace(library, monkeypatch):
    (beside,) = (one for one in library.survey()[0] if one.name == "beside.safetensors")
    monkeypatch.setattr("attnscope.app.library.open_trace", lambda path: pytest.fail("opened"))
    found, refused = library.survey()
    assert refused == {}
    assert [one.title for one in found] == ["first", "second", "beside.safetensors"]
    for one in found[:2]:
        assert one.tags == ("mine",)
        assert library.path_of(one.name).is_file()
        for fact in ("size", "model", "length", "response", "layers", "heads", "gradients"):
            assert getattr(one, fact) == getattr(beside, fact), fact


def test_a_trace_of_a_store_is_deleted_through_its_index(library):
    first, second, beside = library.survey()[0]
    pyramids = first.path.with_suffix(".pyramids")
    pyramids.mkdir()
    library.delete(first.name)
    library.delete(beside.name)
    assert [one.name for one in library.survey()[0]] == [second.name]
    assert TraceStore(library.folder).index()["name"].to_pylist() == ["second"]
    assert not first.path.exists()
    assert not pyramids.exists()


def test_a_damaged_index_is_told(library):
    for path in (library.folder / "index").iterdir():
        path.write_bytes(b"nothing")
    found, refused = library.survey()
    assert [one.name for one in found] == ["beside.safetensors"]
    assert "attnscope store repair" in refused["index"]


def test_tags_are_given_and_taken_in_one_commit_of_the_index(library):
    first, second, _ = library.survey()[0]
    commits = len(list((library.folder / "index").iterdir()))
    library.tag([first.name, second.name], [" read twice "], ["mine"])
    assert len(list((library.folder / "index").iterdir())) == commits + 1
    assert [one.tags for one in library.survey()[0]] == [("read twice",), ("read twice",), ()]
    assert TraceStore(library.folder).index()["tags"].to_pylist() == [["read twice"]] * 2


def test_what_cannot_be_tagged_is_refused_and_nothing_is_changed(library, tmp_path_factory):
    first, _, beside = library.survey()[0]
    for names, tag, words in (
        ([first.name, beside.name], "fine", "does not hold beside"),
        (["../elsewhere.safetensors"], "fine", "does not hold"),
        ([first.name], " ", "is no tag"),
        ([first.name], "two\nlines", "is no tag"),
        ([first.name], "x" * 61, "is no tag"),
    ):
        with pytest.raises(LibraryError, match=words):
            library.tag(names, [tag], [])
    assert [one.tags for one in library.survey()[0]] == [("mine",), ("mine",), ()]
    with pytest.raises(LibraryError, match="does not hold"):
        Library(tmp_path_factory.mktemp("plain")).tag(["a.safetensors"], ["fine"], [])
