"""`StoreFiles`: the files of a store, in a folder or behind any address that fsspec knows."""

import posixpath
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnscope.traces.atomic_file import replacement
from attnscope.traces.errors import StoreError

__all__ = ["StoreFiles"]

_THREADS = 8


class StoreFiles:
    """The files of a store by their names, `/` between the folders.

    A file appears whole or not at all: on this machine it is written aside, synced and renamed;
    object stores put objects so themselves. A network file system that is neither should be
    mounted, and then is a folder of this machine.

    Args:
        address: A folder, or an address of fsspec: `s3://bucket/runs`, `gs://...`, `memory://...`.
        options: What fsspec's file system takes, as `endpoint_url` or `anon`.

    Raises:
        StoreError: fsspec, or the file system's own library, is not installed.
    """

    def __init__(self, address: str, options: Mapping[str, Any]) -> None:
        try:
            import pyarrow  # noqa: F401 - missed here rather than in the middle of a commit
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem

            self.fs, self.root = url_to_fs(address, **options)
        except ImportError as error:
            raise StoreError(
                f"a store at {address} needs a library that is not installed ({error}): "
                "pip install attnscope[store], for S3 attnscope[s3]"
            ) from error
        except ValueError as error:
            raise StoreError(f"{address} is no address of a store: {error}") from error
        self.local = Path(self.root) if isinstance(self.fs, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """Return the path of a file in its file system."""
        return posixpath.join(self.root, name)

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        if self.local is None:
            self.fs.pipe_file(self.path(name), content)
            return
        with replacement(self._target(name)) as stream:
            stream.write(content)

    def put_by(self, name: str, write: Callable[[Path], None], keep: Callable[[Path], Any]) -> Any:
        """Let a file be written, and return what is made of it before it goes to the store.

        Args:
            name: Name in the store.
            write: Writes the file at a path, whole or not at all.
            keep: What to return of the written file.
        """
        if self.local is not None:
            target = self._target(name)
            write(target)
            return keep(target)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            write(path)
            kept = keep(path)
            self.fs.put_file(str(path), self.path(name))
        return kept

    def read(self, names: Sequence[str]) -> list[bytes]:
        """Return the content of files, several at a time.

        Raises:
            FileNotFoundError: One of them is gone.
        """
        if self.local is None:
            paths = [self.path(name) for name in names]
            found = self.fs.cat(paths, on_error="raise") if len(paths) > 1 else {}
            return [found[path] for path in paths] if found else [*map(self.fs.cat_file, paths)]
        folder = self.local
        if len(names) == 1:
            return [(folder / names[0]).read_bytes()]
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda name: (folder / name).read_bytes(), names))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return the bytes of a file from a start to a stop."""
        return self.fs.cat_file(self.path(name), start=start, end=stop)

    def download(self, name: str, path: Path) -> None:
        """Copy a file to this machine."""
        self.fs.get_file(self.path(name), str(path))

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        self.fs.invalidate_cache()
        return self.fs.isfile(self.path(name))

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of every file below a folder, by name, in order of names."""
        self.fs.invalidate_cache()
        home = self.path(folder)
        try:
            found = self.fs.find(home, detail=True)
        except FileNotFoundError:
            return {}
        start = len(posixpath.join(self.root, ""))
        named = {path[start:]: int(facts["size"] or 0) for path, facts in found.items()}
        return {
            name: named[name]
            for name in sorted(named)
            if not posixpath.basename(name).startswith(".")  # being written, or a killed writer's
        }

    def names(self, folder: str) -> list[str]:
        """Return the files of a folder, in order of names.

        A listing is no snapshot: a file may appear behind the place where it stands while another
        one goes before it. What two listings in a row agree upon was there in between.
        """
        before: list[str] | None = None
        while True:
            now = self._listed(folder)
            if now == before:
                return now
            before = now

    def remove(self, names: Sequence[str]) -> None:
        """Delete files; it is no error if one is gone."""
        for name in names:
            with suppress(FileNotFoundError):
                self.fs.rm_file(self.path(name))

    def move(self, name: str, target: str) -> None:
        """Give a file another name."""
        if self.local is not None:
            (self.local / name).rename(self._target(target))
            return
        self.fs.cp_file(self.path(name), self.path(target))
        self.fs.rm_file(self.path(name))

    def _listed(self, folder: str) -> list[str]:
        self.fs.invalidate_cache()
        try:
            paths = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        names = (posixpath.basename(path.rstrip("/")) for path in paths)
        return sorted(posixpath.join(folder, name) for name in names if not name.startswith("."))

    def _target(self, name: str) -> Path:
        """Return the path of a file of this machine, its folder made."""
        if self.local is None:
            raise TypeError("only a store on this machine has paths")
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target
