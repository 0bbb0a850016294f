"""A replaced file is the old one or the new one."""

import os
import stat

import pytest

from attnscope.traces.atomic_file import replacement


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_the_content_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacement(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files need a name on this system")
def test_an_unfinished_file_has_no_name(tmp_path):
    with replacement(tmp_path / "file") as stream:
        stream.write(b"new")
        stream.flush()
        assert names(tmp_path) == []


@pytest.mark.parametrize("fails", [False, True])
def test_where_files_need_a_name_it_is_taken_away_again(tmp_path, monkeypatch, fails):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    try:
        with replacement(path) as stream:
            stream.write(b"new")
            assert len(names(tmp_path)) == 2
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert path.read_bytes() == (b"old" if fails else b"new")
    assert names(tmp_path) == ["file"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    with replacement(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with replacement(tmp_path / "file") as stream:
        stream.write(b"new")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1
