"""What a crash or a careless hand leaves behind is told, and repaired without losing a trace."""

import pytest

from attnscope.traces import (
    Deposit,
    StoreError,
    TraceStore,
    adopt_orphans,
    check_store,
    repair_store,
    set_orphans_aside,
    survey_store,
)


@pytest.fixture
def store(tmp_path, make_trace):
    store = TraceStore(tmp_path / "store")
    for number in range(3):
        store.append([Deposit(trace=make_trace(length=8, seed=number), item=f"i{number}")])
    return store


def paths(store):
    return store.index()["path"].to_pylist()


def test_a_sound_store_has_nothing_to_repair(store):
    before = store.index()
    report = repair_store(store)
    assert report.is_sound
    assert (report.items, report.orphans, report.leftovers) == (3, (), ())
    assert store.index().equals(before)
    assert check_store(store) == {}


def test_a_damaged_file_of_the_index_is_set_aside_and_its_trace_adopted(store):
    first = store.files.names("index")[0]
    (store.files.local / first).write_bytes(b"PAR1 nonsense")
    with pytest.raises(StoreError, match=f"{first} is damaged .*attnscope store repair"):
        store.index()
    report = repair_store(store)
    assert list(report.damaged) == [first]
    assert (store.files.local / "attic" / first).is_file()
    assert (report.items, len(report.orphans)) == (2, 1)
    adopted, refused = adopt_orphans(store)
    assert adopted == list(report.orphans)
    assert refused == {}
    assert sorted(store.index()["item"].to_pylist()) == ["i0", "i1", "i2"]
    assert survey_store(store).is_sound
    for number in store.index()["id"].to_pylist():
        assert store.open(number).attention[0].shape == (4, 8, 8)


def test_an_orphan_is_told_adopted_or_set_aside_but_never_deleted(store, make_trace):
    files = store.files.local
    (files / "traces/00").mkdir(exist_ok=True)
    make_trace(length=8).save(files / "traces/00/aa.i9.safetensors")
    make_trace(length=8).save(files / "traces/00/bb.i1.safetensors")
    (files / "traces/00/cc.i7.safetensors").write_bytes(b"cut off")
    orphans = tuple(f"traces/00/{name}.safetensors" for name in ("aa.i9", "bb.i1", "cc.i7"))
    assert survey_store(store).orphans == orphans
    assert repair_store(store).orphans == orphans
    adopted, refused = adopt_orphans(store)
    assert adopted == ["traces/00/aa.i9.safetensors"]
    assert "captured since" in refused["traces/00/bb.i1.safetensors"]
    assert "not a trace" in refused["traces/00/cc.i7.safetensors"]
    assert set_orphans_aside(store) == list(orphans[1:])
    assert (files / "attic/traces/00/cc.i7.safetensors").read_bytes() == b"cut off"
    assert survey_store(store).orphans == ()
    assert store.index().num_rows == 4


def test_a_writer_that_commits_what_was_adopted_counts_once(store, make_trace):
    """Its event comes late, under the same id."""
    from attnscope.traces.store_deposit import deposited

    event = deposited(store.files, Deposit(trace=make_trace(length=8), item="late", tags=["mine"]))
    adopt_orphans(store)
    store.record([event])
    rows = [row for row in store.index().to_pylist() if row["item"] == "late"]
    assert [(row["id"], row["tags"]) for row in rows] == [(event.id, ["mine"])]
    report = survey_store(store)
    assert (report.orphans, report.leftovers, report.missing) == ((), (), ())


def test_a_missing_and_a_changed_trace_are_told(store):
    gone, changed, _ = paths(store)
    (store.files.local / gone).unlink()
    file = store.files.local / changed
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    report = survey_store(store)
    assert report.missing == (gone,)
    assert not report.is_sound
    assert set(check_store(store)) == {gone, changed}


def test_what_a_killed_deletion_left_is_a_leftover(store):
    (row, *_) = store.index().to_pylist()
    path = store.files.local / row["path"]
    content = path.read_bytes()
    store.delete([row["id"]])
    path.write_bytes(content)
    assert survey_store(store).leftovers == (row["path"],)
    assert set_orphans_aside(store) == [row["path"]]
