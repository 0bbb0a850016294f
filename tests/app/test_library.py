import pytest

from attnscope.app.library import Library, LibraryError, free_path, shared_trace, stamp_of
from attnscope.traces import TraceError


def test_names_lead_nowhere_but_into_the_store(trace_file, tmp_path):
    store = Library(tmp_path / "store")
    store.folder.mkdir()
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(trace_file.read_bytes())
    (store.folder / "link.safetensors").symlink_to(outside)
    (store.folder / "notes.txt").write_text("no trace")
    for name in (
        "../outside.safetensors",
        str(outside),
        "link.safetensors",
        "notes.txt",
        "none.safetensors",
        ".",
        "",
        "a\0b.safetensors",
        "x" * 5000 + ".safetensors",
    ):
        with pytest.raises(LibraryError, match="the store holds no trace"):
            store.path_of(name)
    found, refused = store.survey()
    assert found == []
    assert list(refused) == ["link.safetensors"]


def test_an_upload_gets_a_name_of_its_own_and_is_opened_first(trace_file, tmp_path):
    store = Library(tmp_path)
    content = trace_file.read_bytes()
    assert store.put("run.safetensors", content) == "uploads/run.safetensors"
    assert store.put("../../run.safetensors", content) == "uploads/run (2).safetensors"
    assert store.put("..\\..\\.hidden", content) == "uploads/hidden.safetensors"
    for bad in (b"", b"noise", content[:-100]):
        with pytest.raises(TraceError, match=r"bad\.safetensors"):
            store.put("bad.safetensors", bad)
    assert sorted(path.name for path in (tmp_path / "uploads").iterdir()) == [
        "hidden.safetensors",
        "run (2).safetensors",
        "run.safetensors",
    ]


def test_a_trace_is_deleted_once(trace_file, tmp_path):
    store = Library(tmp_path)
    name = store.put("run", trace_file.read_bytes())
    store.delete(name)
    with pytest.raises(LibraryError):
        store.delete(name)


def test_a_trace_is_opened_once_and_again_when_it_was_replaced(trace_file, tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(trace_file.read_bytes())
    first, stamp = shared_trace(path), stamp_of(path)
    assert shared_trace(path) is first
    other = tmp_path / "other"
    other.write_bytes(trace_file.read_bytes())
    other.replace(path)
    assert stamp_of(path) != stamp
    assert shared_trace(path) is not first


@pytest.mark.parametrize("wanted", ["", "...", " ", "a/b", "x" * 999])
def test_a_free_path_stays_in_its_folder(tmp_path, wanted):
    path = free_path(tmp_path, wanted)
    assert path.parent == tmp_path
    assert len(path.name) < 140
    path.touch()
    assert free_path(tmp_path, wanted) != path


def test_the_pyramids_beside_a_trace_go_with_it(trace_file, tmp_path):
    store = Library(tmp_path / "store")
    content = trace_file.read_bytes()
    names = [store.put(name, content) for name in ("one", "two", "three")]
    for name in names[:2]:
        pyramids = (store.folder / name).with_suffix(".pyramids")
        pyramids.mkdir()
        (pyramids / "map.pyramid").write_bytes(b"levels")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "map.pyramid").write_bytes(b"levels")
    (store.folder / names[2]).with_suffix(".pyramids").symlink_to(outside)
    store.delete(names[0])
    store.delete(names[2])
    left = sorted(path.name for path in (store.folder / "uploads").iterdir())
    assert left == ["three.pyramids", "two.pyramids", "two.safetensors"]
    assert (outside / "map.pyramid").exists()  # what a link leads to is not of the store
