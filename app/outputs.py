"""Files that commands write: complete or not at all, and over no other file unasked."""

from collections.abc import Iterable
from pathlib import Path

from attnscope.app.failures import CommandError

__all__ = ["check_free", "check_no_pictures", "make_folder"]


def check_free(paths: Iterable[Path], *, force: bool) -> None:
    """Refuse to write where something stands that must not be replaced.

    Links are refused in any case, because what they point to lies elsewhere.

    Raises:
        CommandError: There is a file and no `force`, a folder, or a link.
    """
    for path in paths:
        if path.is_symlink():
            raise CommandError(f"{path} is a link; nothing is written through links")
        if path.is_dir():
            raise CommandError(f"{path} is a folder")
        if path.exists() and not force:
            raise CommandError(f"{path} exists; --force overwrites it")


def check_no_pictures(folder: Path, *, force: bool) -> None:
    """Refuse a folder for figures in which there are pictures already.

    Raises:
        CommandError: There are and no `force`, or links among them, or this is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is not a folder")
    check_free(sorted(folder.glob("*.png")), force=force)


def make_folder(path: Path) -> Path:
    """Return a folder, made where it does not exist.

    Raises:
        CommandError: Something else stands in its place.
    """
    if path.exists() and not path.is_dir():
        raise CommandError(f"{path} is not a folder")
    path.mkdir(parents=True, exist_ok=True)
    return path
