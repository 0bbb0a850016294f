"""A folder that is a store is listed by its index, and what lies beside by its headers."""

import pytest

from attnscope.app.library import Library
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
    assert [one.notes.get("name") for one in found] == ["first", "second", None]
    for one in found[:2]:
        assert one.notes["tags"] == "mine"
        assert library.path_of(one.name).is_file()
        for fact in ("size", "model", "length", "response", "layers", "heads", "gradients"):
            assert getattr(one, fact) == getattr(beside, fact), fact


def test_a_trace_of_a_store_is_deleted_through_its_index(library):
    first, second, beside = library.survey()[0]
    library.delete(first.name)
    library.delete(beside.name)
    assert [one.name for one in library.survey()[0]] == [second.name]
    assert TraceStore(library.folder).index()["name"].to_pylist() == ["second"]
    assert not first.path.exists()


def test_a_damaged_index_is_told(library):
    for path in (library.folder / "index").iterdir():
        path.write_bytes(b"nothing")
    found, refused = library.survey()
    assert [one.name for one in found] == ["beside.safetensors"]
    assert "attnscope store repair" in refused["index"]
