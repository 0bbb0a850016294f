"""The traces that the workbench may open: one folder, the store, to which uploads are added.

Names come from outside, out of addresses and uploads: each is looked for in the store alone.
"""

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from attnscope.app.indexed_traces import STORED, indexed_traces
from attnscope.app.server import DEFAULT_STORE, STORE
from attnscope.figures import pyramid_path
from attnscope.traces import StoreError, Trace, TraceError, TraceStore, open_trace

__all__ = [
    "ENDING",
    "Holding",
    "Library",
    "LibraryError",
    "forget_pyramids",
    "free_path",
    "shared_trace",
    "stamp_of",
    "the_library",
]

ENDING = ".safetensors"

_UPLOADS = "uploads"
_OPEN_TRACES = 8
_LISTED_TRACES = 10_000
_UNSAFE = re.compile(r"[^\w .,+=@()-]")
_LONGEST_NAME = 120
_LONGEST_TAG = 60
_WRITING = threading.Lock()


class LibraryError(ValueError):
    """A trace is asked for that the store does not hold, or put where it cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the header of one trace of the store says.

    Attributes:
        name: Its path within the store: what addresses call it.
        title: What menus call it.
        id: Its id in the index of the store; empty where it stands outside of one.
        tags: Its tags, which the index keeps.
        path: The file.
        size: Its bytes.
        modified: When it was written, in seconds since 1970.
        model: The model; empty where it is not named.
        tokens: The tokens of the main sequence: untrusted text; none where only an index was read.
        length: How many tokens there are.
        response: How many of them are the model's own words.
        layers: Its attention layers, of all stacks.
        heads: The heads of a layer of the main stack.
        gradients: Whether gradients were captured.
        notes: What else is known of it.
    """

    name: str
    title: str
    id: str = ""
    tags: tuple[str, ...] = ()
    path: Path
    size: int
    modified: float
    model: str
    tokens: tuple[str, ...]
    length: int
    response: int
    layers: int
    heads: int
    gradients: bool
    notes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Library:
    """A folder of traces, with the folders in it.

    Attributes:
        folder: The store; it need not exist before something is put into it.
    """

    folder: Path

    def survey(self) -> tuple[list[Holding], dict[str, str]]:
        """Return the traces by name, and why other files that end alike are none.

        Only headers are read, and those of unchanged files only once. Where the folder is a
        `TraceStore`, its index is read instead, and the headers of the files beside it.
        """
        found: list[Holding] = []
        refused: dict[str, str] = {}
        store = self._store()
        try:
            found += [] if store is None else [Holding(**own) for own in indexed_traces(store)]
        except StoreError as error:
            refused["index"] = str(error)
        for path in sorted(self.folder.rglob(f"*{ENDING}")):
            name = path.relative_to(self.folder).as_posix()
            if store is not None and name.startswith(STORED):
                continue
            try:
                found.append(_held(name, self.path_of(name)))
            except (TraceError, LibraryError, OSError) as error:
                refused[name] = str(error)
        return found, refused

    def path_of(self, name: str) -> Path:
        """Return the file of a trace.

        Raises:
            LibraryError: The store holds no such file.
        """
        home = self.folder.resolve()
        try:
            path = (home / name).resolve()
            inside = path.is_relative_to(home) and path.suffix == ENDING and path.is_file()
        except (OSError, ValueError):  # what no file can be called
            inside = False
        if not inside:
            raise LibraryError(f"the store holds no trace {name!r}; choose one of those it lists")
        return home / name

    def put(self, name: str, content: bytes) -> str:
        """Keep an uploaded trace, and return its name in the store.

        It is opened before it gets its name, so that what is no trace is never listed.

        Args:
            name: What it was called elsewhere: untrusted text.
            content: The file.

        Raises:
            TraceError: It is no trace, or is cut off.
            OSError: The store cannot be written.
        """
        folder = self.folder / _UPLOADS
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{secrets.token_hex(8)}.part"
        try:
            part.write_bytes(content)
            _check(part, name)
            with _WRITING:
                path = free_path(folder, Path(name.replace("\\", "/")).name.removesuffix(ENDING))
                part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        return path.relative_to(self.folder).as_posix()

    def delete(self, name: str) -> None:
        """Delete the file of a trace, and the pyramids of its maps beside it.

        Raises:
            LibraryError: The store holds no such file.
            OSError: It cannot be deleted.
        """
        path, store = self.path_of(name), self._store()
        number = self._ids().get(name)
        if store is not None and number is not None:
            store.delete([number])
        else:
            path.unlink()
        forget_pyramids(path)

    def tag(self, names: Iterable[str], add: Iterable[str], remove: Iterable[str]) -> None:
        """Give traces tags and take tags from them, all in one commit of the index.

        Raises:
            LibraryError: A trace stands outside the index, or a tag is no short line of text.
            StoreError: The index is damaged.
        """
        given, known, store = [tag.strip() for tag in add], self._ids(), self._store()
        bad = [tag for tag in given if not tag.isprintable() or not 0 < len(tag) <= _LONGEST_TAG]
        if bad:
            raise LibraryError(
                f"{bad[0][:_LONGEST_TAG]!r} is no tag; a tag is a line of 1 to {_LONGEST_TAG} "
                "characters"
            )
        wanted = list(names)
        outside = [name for name in wanted if name not in known]
        if store is None or outside:
            raise LibraryError(
                f"the index of the store does not hold {', '.join(outside)}: it has no tags"
            )
        store.tag([known[name] for name in wanted], given, remove)

    def _ids(self) -> dict[str, str]:
        """Return the ids of the traces of the index, by name."""
        store = self._store()
        return {} if store is None else {own["name"]: own["id"] for own in indexed_traces(store)}

    def _store(self) -> TraceStore | None:
        """Return the folder as a `TraceStore`, where it is one."""
        if not (self.folder / "index").is_dir():
            return None
        store = TraceStore(self.folder)
        return store if store.exists else None


def the_library() -> Library:
    """Return the store of this server: the folder that `ATTNSCOPE_STORE` names."""
    return Library(Path(os.environ.get(STORE, DEFAULT_STORE)))


def shared_trace(path: Path) -> Trace:
    """Return an opened trace, the same object for all sessions; a replaced file is opened anew.

    The last few stay open. What they hold are the pages of their files, which the system may drop.

    Raises:
        TraceError: The file is no trace, or is damaged.
        OSError: It is gone.
    """
    return _opened(*stamp_of(path))


def stamp_of(path: Path) -> tuple[str, int, int]:
    """Return what tells one state of a file from another: path, time of change and size."""
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


def free_path(folder: Path, wanted: str) -> Path:
    """Return a path of a folder at which no file stands, named as wanted as far as can be."""
    stem = _UNSAFE.sub("_", wanted).strip(" .")[:_LONGEST_NAME] or "trace"
    path, number = folder / f"{stem}{ENDING}", 2
    while path.exists():
        path, number = folder / f"{stem} ({number}){ENDING}", number + 1
    return path


def forget_pyramids(trace: Path) -> None:
    """Delete the folder of the pyramids of a trace's maps, where there is one.

    Raises:
        OSError: It cannot be deleted.
    """
    folder = pyramid_path(trace, "").parent
    if folder.is_dir() and not folder.is_symlink():  # a link may lead out of the store
        shutil.rmtree(folder)


def _check(part: Path, name: str) -> None:
    """Refuse a file that is no whole trace, by the name that its owner knows."""
    try:
        open_trace(part)
    except TraceError as error:
        raise TraceError(str(error).replace(str(part), name)) from error


def _held(name: str, path: Path) -> Holding:
    return _described(name, *stamp_of(path))


@st.cache_resource(max_entries=_OPEN_TRACES, show_spinner=False)
def _opened(path: str, modified: int, size: int) -> Trace:
    return open_trace(path)


@st.cache_resource(max_entries=_LISTED_TRACES, show_spinner=False)
def _described(name: str, path: str, modified: int, size: int) -> Holding:
    trace = open_trace(path)
    facts: dict[str, Any] = {"layers": len(trace.sites), "heads": 0, "gradients": False}
    if trace.sites:
        summaries = trace.observed.summaries
        main = next(own for own in summaries if own.site.stack == trace.main_stack)
        facts |= {"heads": main.shape[0], "gradients": any(own.has_gradient for own in summaries)}
    return Holding(
        name=name,
        title=name,
        path=Path(path),
        size=size,
        modified=modified / 1e9,
        model=trace.provenance.model,
        tokens=trace.tokens,
        length=len(trace.tokens),
        response=len(trace.segments["response"]) if "response" in trace.segments else 0,
        notes=dict(trace.provenance.notes),
        **facts,
    )
