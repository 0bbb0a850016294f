import pytest

from attnscope.app.failures import CommandError
from attnscope.app.outputs import check_free, check_no_pictures, make_folder


def test_a_file_is_overwritten_only_when_asked(tmp_path):
    path = tmp_path / "a"
    check_free([path], force=False)
    path.write_text("x")
    with pytest.raises(CommandError, match="exists; --force overwrites it"):
        check_free([path], force=False)
    check_free([path], force=True)


def test_links_and_folders_are_never_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CommandError, match="is a link"):
        check_free([tmp_path / "link"], force=True)
    with pytest.raises(CommandError, match="is a folder"):
        check_free([tmp_path / "folder"], force=True)


def test_a_folder_with_pictures_is_not_drawn_into_unasked(tmp_path):
    check_no_pictures(tmp_path / "none", force=False)
    (tmp_path / "notes.txt").touch()
    check_no_pictures(tmp_path, force=False)
    (tmp_path / "a.png").touch()
    with pytest.raises(CommandError, match=r"a\.png exists"):
        check_no_pictures(tmp_path, force=False)
    check_no_pictures(tmp_path, force=True)
    with pytest.raises(CommandError, match="is not a folder"):
        check_no_pictures(tmp_path / "a.png", force=True)


def test_folders_are_made_with_their_parents_and_never_in_place_of_files(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="is not a folder"):
        make_folder(tmp_path / "file")
