"""`replacement`: a stream whose file takes its place when it is complete, or never."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacement"]


@contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream whose content becomes the file at `path` when the block ends without error.

    Content and folder are synced, so that after a crash the path holds the old file or the new
    one. Readers that have the old file open keep it. While it is written the new file has no name
    where the system can do that (Linux), and so leaves nothing behind if the process is killed.
    """
    target = path.resolve()  # through a link, replace what it points to
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        with _create(temporary) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            _name(stream, temporary, folder)
        temporary.replace(target)
        os.fsync(folder)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(folder)


def _create(temporary: Path) -> BinaryIO:
    """Open a new file, without a name where possible."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with suppress(OSError):  # some file systems need a name
            descriptor = os.open(temporary.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
            return os.fdopen(descriptor, "w+b")
    return temporary.open("x+b")


def _name(stream: BinaryIO, temporary: Path, folder: int) -> None:
    """Give the file its temporary name, if it has none yet."""
    if os.fstat(stream.fileno()).st_nlink == 0:
        source = f"/proc/self/fd/{stream.fileno()}"
        os.link(source, temporary.name, dst_dir_fd=folder, follow_symlinks=True)
