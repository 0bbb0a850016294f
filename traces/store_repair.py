"""`survey_store` and `repair_store`: what does not fit in a store, and how it is set right."""

import posixpath
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attnscope.traces.errors import StoreError, TraceError
from attnscope.traces.reader import open_trace
from attnscope.traces.store import TraceStore
from attnscope.traces.store_deposit import TRACES, checksum_of, name_parts
from attnscope.traces.store_event import Event, RunFacts
from attnscope.traces.store_view import deleted_ids, held, superseded
from attnscope.traces.trace import Trace

__all__ = [
    "Survey",
    "adopt_orphans",
    "check_store",
    "repair_store",
    "set_orphans_aside",
    "survey_store",
]

_ATTIC = "attic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found in a store.

    Attributes:
        items: Items that the index holds.
        damaged: Parquet files that cannot be read, and why.
        missing: Traces that the index names and that are not there, or have another length.
        orphans: Trace files that no event names: of writers that were killed, or are at work.
        leftovers: Trace files of items that were deleted, or captured before.
    """

    items: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Return whether everything that was committed is there and can be read."""
        return not self.damaged and not self.missing


def survey_store(store: TraceStore) -> Survey:
    """Return what a store holds and what does not fit, changing nothing.

    Costs one listing of the whole store, and reads its index and readings.

    Raises:
        StoreError: There is no store.
    """
    store.require()
    damaged = store.events.damaged() | store.measured.damaged()
    files = store.files.sizes(TRACES)  # listed before the index is read: what comes is no orphan
    if any(name.startswith(store.events.folder) for name in damaged):
        return Survey(damaged=damaged)
    log = store.log()
    index = held(log).select(["id", "path", "bytes"]).to_pylist()
    sizes = store.files.sizes(TRACES)
    named = {row["path"]: row["bytes"] for row in index if row["path"]}
    gone = {*deleted_ids(log).to_pylist(), *superseded(log)["id"].to_pylist()}
    others = [name for name in files if name not in named]
    return Survey(
        items=len(index),
        damaged=damaged,
        missing=tuple(name for name, size in named.items() if sizes.get(name) != size),
        orphans=tuple(name for name in others if name_parts(name)[0] not in gone),
        leftovers=tuple(name for name in others if name_parts(name)[0] in gone),
    )


def repair_store(store: TraceStore) -> Survey:
    """Set damaged Parquet files aside, merge the others, and return what is left to say.

    A damaged file goes to the folder `attic`. Traces that only it named are orphans then, which
    `adopt_orphans` lists anew; every other file stays as it is.

    Raises:
        StoreError: There is no store.
    """
    store.require()
    found = survey_store(store)
    for name in found.damaged:
        _set_aside(store, name)
    store.compact()
    return replace(survey_store(store), damaged=found.damaged)


def adopt_orphans(store: TraceStore) -> tuple[list[str], dict[str, str]]:
    """List anew the whole traces that no event names, and return them, and why others are not.

    The index gets what the file says: tags, readings and names that its event had are lost. A
    trace whose item was captured since becomes a leftover. A writer that is just at work commits
    its own event beside ours, under the same id: both count once.

    Raises:
        StoreError: There is no store, or its index is damaged.
    """
    orphans = survey_store(store).orphans
    known = set(store.index()["item"].to_pylist())
    events: list[Event] = []
    refused: dict[str, str] = {}
    for path in orphans:
        number, item = name_parts(path)
        try:
            facts, (size, digest) = _described(store, path)
        except (TraceError, OSError) as error:
            refused[path] = str(error)
            continue
        if item in known:
            refused[path] = f"its item {item} was captured since"
            continue
        known.add(item)
        event = Event(kind="trace", id=number, item=item, name=number, facts=facts, path=path)
        events.append(replace(event, bytes=size, checksum=digest))
    store.record(events)
    return [event.path for event in events], refused


def set_orphans_aside(store: TraceStore) -> list[str]:
    """Move orphans and leftovers to the folder `attic`, and return their names.

    Only when no writer is at work: what it has not committed yet is an orphan, too.

    Raises:
        StoreError: There is no store, or its index is damaged.
    """
    found = survey_store(store)
    names = [*found.orphans, *found.leftovers]
    for name in names:
        _set_aside(store, name)
    return names


def check_store(store: TraceStore) -> dict[str, str]:
    """Return which traces of the index are not what was put there, reading every one whole.

    Raises:
        StoreError: There is no store, or its index is damaged.
    """
    wrong: dict[str, str] = {}
    for row in store.index().select(["path", "bytes", "checksum"]).to_pylist():
        if not row["path"]:
            continue
        try:
            if _on_this_machine(store, row["path"], checksum_of) != (row["bytes"], row["checksum"]):
                raise StoreError("is not what was put there")
        except (TraceError, OSError) as error:
            wrong[row["path"]] = str(error)
    return wrong


def _described(store: TraceStore, path: str) -> tuple[RunFacts, tuple[int, str]]:
    def describe(file: Path) -> tuple[RunFacts, tuple[int, str]]:
        trace = open_trace(file)
        _read_all(trace)
        return RunFacts.of_trace(trace), checksum_of(file)

    return _on_this_machine(store, path, describe)


def _read_all(trace: Trace) -> None:
    """Compare every tensor of a trace with its checksums."""
    for observation in trace.observed:
        del observation


def _on_this_machine(store: TraceStore, name: str, use: Any) -> Any:
    """Return what is made of a file of the store, copied here first where it lies elsewhere."""
    if store.files.local is not None:
        return use(store.files.local / name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.safetensors"
        store.files.download(name, path)
        return use(path)


def _set_aside(store: TraceStore, name: str) -> None:
    store.files.move(name, posixpath.join(_ATTIC, name))
