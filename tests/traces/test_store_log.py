"""A compaction that crashes, or meets another one, neither loses nor doubles a row."""

import pyarrow
import pytest

from attnscope.traces import StoreError
from attnscope.traces.store_files import StoreFiles
from attnscope.traces.store_log import FragmentLog, new_id

SCHEMA = pyarrow.schema([("key", pyarrow.int64()), ("values", pyarrow.list_(pyarrow.float64()))])


@pytest.fixture
def log(tmp_path):
    return FragmentLog(StoreFiles(str(tmp_path), {}), "log", SCHEMA, ["key"])


def table(*keys):
    return pyarrow.table({"key": list(keys), "values": [[float(k)] for k in keys]}, schema=SCHEMA)


def keys(log):
    return sorted(log.read()["key"].to_pylist())


def test_ids_never_repeat_and_follow_time():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [name[:16] for name in ids] == sorted(name[:16] for name in ids)


def test_a_compaction_keeps_every_row_once_and_large_files_as_they_are(log):
    for key in range(5):
        log.commit(table(key))
    large = log.commit(table(*range(100, 5000)))
    size = log.files.sizes("log")[large]
    fold = log.compact(most_bytes=size)
    assert (fold.taken, fold.written, fold.rows) == (5, 1, 5)
    assert large in log.files.names("log")
    assert keys(log) == [*range(5), *range(100, 5000)]
    assert log.compact(most_bytes=size).taken == 0


def test_a_crash_before_the_old_files_go_doubles_nothing(log, monkeypatch):
    for key in range(4):
        log.commit(table(key))
    monkeypatch.setattr(log.files, "remove", lambda names: None)
    log.compact(1 << 20)
    assert len(log.files.names("log")) == 5
    assert keys(log) == [0, 1, 2, 3]
    assert sorted(log.scan(["values"])["values"].to_pylist()) == [[0.0], [1.0], [2.0], [3.0]]
    monkeypatch.undo()
    log.compact(1 << 20)
    assert len(log.files.names("log")) == 1
    assert keys(log) == [0, 1, 2, 3]


def test_files_that_go_while_they_are_read_are_looked_for_anew(log, monkeypatch):
    for key in range(4):
        log.commit(table(key))
    read, other = log.files.read, FragmentLog(log.files, "log", SCHEMA, ["key"])

    def read_late(names):
        monkeypatch.setattr(log.files, "read", read)
        other.compact(1 << 20)
        return read(names)

    monkeypatch.setattr(log.files, "read", read_late)
    assert keys(log) == [0, 1, 2, 3]
    monkeypatch.setattr(log.files, "read", read_late)
    assert log.compact(1 << 20).taken == 0  # the other one was faster


def test_a_listing_that_saw_neither_old_nor_new_is_taken_again(log, monkeypatch):
    log.commit(table(1))
    listed = log.files._listed
    answers = [[], listed("log"), listed("log")]
    monkeypatch.setattr(log.files, "_listed", lambda folder: answers.pop(0))
    assert keys(log) == [1]


def test_a_compacted_file_stands_behind_what_it_replaces(log):
    first = log.commit(table(1))
    log.commit(table(2))
    log.compact(1 << 20)
    (merged,) = log.files.names("log")
    log.commit(table(3))
    log.compact(1 << 20)
    (again,) = log.files.names("log")
    assert first < merged < again


def test_a_scan_reads_what_is_asked_for(log):
    from pyarrow import compute

    log.commit(table(1, 2))
    log.commit(table(3))
    found = log.scan(["values"], compute.field("key") >= 2)
    assert sorted(found["values"].to_pylist()) == [[2.0], [3.0]]
    assert found.column_names == ["values"]


def test_damage_is_told_with_the_file(log):
    log.commit(table(1))
    bad = log.commit(table(2))
    (log.files.local / bad).write_bytes(b"nothing")
    for call in (log.read, log.scan, lambda: log.compact(1 << 20)):
        with pytest.raises(StoreError, match="is damaged"):
            call()
    assert list(log.damaged()) == [bad]


def test_files_are_read_once_and_what_did_not_change_is_the_same_table(log, monkeypatch):
    log.commit(table(1))
    asked = []
    read = log.files.read
    monkeypatch.setattr(log.files, "read", lambda names: asked.append(len(names)) or read(names))
    first = log.read()
    assert log.read() is first
    log.commit(table(2))
    log.commit(table(3))
    assert keys(log) == [1, 2, 3]
    assert asked == [1, 2]
    log.compact(1 << 20)
    assert keys(log) == [1, 2, 3]
