"""`Deposit`: what is put into a store as one item, and how its trace gets there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from attnscope.traces.store_event import Event, RunFacts
from attnscope.traces.store_files import StoreFiles
from attnscope.traces.store_log import new_id
from attnscope.traces.stored_reading import StoredReading
from attnscope.traces.trace import Trace

__all__ = ["TRACES", "Deposit", "checksum_of", "deposited", "name_parts"]

TRACES = "traces"
"""Folder of a store's traces."""

_ENDING = ".safetensors"
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """What is to be put into a store as one item.

    Attributes:
        trace: What was captured; None where readings alone are kept, or where it failed.
        readings: What was measured of it, `attnscope.metrics.Reading`s or `StoredReading`s; by
            default what the trace holds.
        facts: What is known of the run; by default what the trace says.
        item: What it is a capture of: of one item the earliest capture counts. By default every
            deposit is an item of its own.
        name: What people call it.
        tags: What it is to be found by.
        error: Why it failed; empty where it did not.
    """

    trace: Trace | None = None
    readings: Sequence[Any] = ()
    facts: RunFacts | None = None
    item: str = ""
    name: str = ""
    tags: Sequence[str] = ()
    error: str = ""

    @property
    def measured(self) -> list[StoredReading]:
        """Return the readings as they are stored."""
        given = self.readings
        if not given and self.trace is not None:
            given = tuple(self.trace.readings.values())
        return [StoredReading.of(reading) for reading in given]


def deposited(files: StoreFiles, deposit: Deposit) -> Event:
    """Write the trace of a deposit, and return the event that is to commit it.

    Raises:
        TraceError: The trace cannot be stored.
    """
    number = new_id()
    kind = "error" if deposit.error else "readings" if deposit.trace is None else "trace"
    event = Event(
        kind=kind,
        id=number,
        item=deposit.item or number,
        name=deposit.name or number,
        facts=deposit.facts or RunFacts(),
        tags=tuple(deposit.tags),
        metrics=tuple(dict.fromkeys(reading.name for reading in deposit.measured)),
        error=deposit.error,
    )
    if deposit.trace is None:
        return event
    path = f"{TRACES}/{number[-2:]}/{number}.{event.item}{_ENDING}"
    size, digest = files.put_by(path, deposit.trace.save, checksum_of)
    facts = deposit.facts or RunFacts.of_trace(deposit.trace)
    return replace(event, path=path, bytes=size, checksum=digest, facts=facts)


def name_parts(path: str) -> tuple[str, str]:
    """Return id and item of a trace by its file in a store.

    Example:
        >>> name_parts("traces/0b/5a0b.q1.safetensors")
        ('5a0b', 'q1')
    """
    number, _, item = path.rpartition("/")[2].removesuffix(_ENDING).partition(".")
    return number, item or number


def checksum_of(path: Path) -> tuple[int, str]:
    """Return the length and the checksum of a file."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return path.stat().st_size, digest.hexdigest()
