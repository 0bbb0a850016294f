"""`TraceStore`: any number of traces in a folder or an object store, with an index to query.

    attnscope-store.json          what this folder is, and the version of its layout
    traces/5f/ID.ITEM.safetensors one trace, under a name that nobody else takes
    readings/000-ID.parquet       readings, a row per layer and head
    index/000-ID.parquet          events: an item came, failed, was tagged or deleted
    attic/...                     what a repair set aside

A commit writes its traces, then its readings, then one file of the index: when that stands, all of
it is committed, and before it nothing is. Files are never changed, so that any number of writers
may commit at once without a lock. A writer that is killed leaves at most files that no event
names, which `attnscope store repair` reports.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attnscope.traces.errors import StoreError
from attnscope.traces.store_arrow import compute
from attnscope.traces.store_deposit import Deposit, deposited
from attnscope.traces.store_event import Event, event_schema, event_table
from attnscope.traces.store_files import StoreFiles
from attnscope.traces.store_log import Fold, FragmentLog
from attnscope.traces.store_marker import MARKER, has_marker, put_marker
from attnscope.traces.store_opening import opened
from attnscope.traces.store_readings import reading_schema, reading_table
from attnscope.traces.store_view import failures, held
from attnscope.traces.trace import Trace

__all__ = ["TraceStore"]

_COMPACT_BYTES = 1 << 27


class TraceStore:
    """Traces and readings behind one address, which many writers fill and anybody queries.

    Args:
        address: A folder, or an address of fsspec: `s3://bucket/runs`.
        options: What fsspec's file system takes: `endpoint_url`, `anon`, ...

    Raises:
        StoreError: A library is missing, or a newer attnscope made the store.

    Example:
        >>> import tempfile
        >>> from attnscope.traces import TokenSequence
        >>> text = TokenSequence(name="text", tokens=("to", "be"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = TraceStore(folder)
        ...     trace = Trace(observations=[], sequences={"text": text}, main_sequence="text")
        ...     number = store.add(trace, name="first", tags=["short"])
        ...     store.tag([number], add=["read"], remove=["short"])
        ...     rows = store.index().select(["name", "tokens", "tags"]).to_pylist()
        >>> rows
        [{'name': 'first', 'tokens': 2, 'tags': ['read']}]
    """

    def __init__(self, address: str | os.PathLike[str], **options: Any) -> None:
        self.address = os.fspath(address)
        self.files = StoreFiles(self.address, options)
        self.events = FragmentLog(self.files, "index", event_schema(), ["event"])
        self.measured = FragmentLog(self.files, "readings", reading_schema(), ["id", "row"])
        self._marked = False
        self._seen: tuple[Any, Any] = None, None

    def __repr__(self) -> str:
        """Return where the store is."""
        return f"TraceStore({self.address!r})"

    # --- what there is ----------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Return whether there is a store at the address."""
        self._marked = self._marked or has_marker(self.files)
        return self._marked

    @property
    def index_glob(self) -> str:
        """Return the pattern of the index's Parquet files, for DuckDB and polars.

        They hold events; `index` says what those add up to. See the page of this folder.
        """
        return self._glob(self.events)

    @property
    def readings_glob(self) -> str:
        """Return the pattern of the readings' Parquet files, for DuckDB and polars."""
        return self._glob(self.measured)

    def index(self) -> Any:
        """Return the items of the store as a `pyarrow.Table`, in the order in which they came.

        `.to_pandas()`, `polars.from_arrow(...)` and DuckDB take it as it is.

        Raises:
            StoreError: There is no store, or its index is damaged.
        """
        log = self.log()
        if log is not self._seen[0]:
            self._seen = log, held(log)
        return self._seen[1]

    def failures(self) -> Any:
        """Return the items that failed and were not captured since, as a `pyarrow.Table`.

        Raises:
            StoreError: There is no store, or its index is damaged.
        """
        return failures(self.log())

    def log(self) -> Any:
        """Return every event of the store as a `pyarrow.Table`, in no order.

        Raises:
            StoreError: There is no store, or its index is damaged.
        """
        self.require()
        return self.events.read()

    def readings(self, metric: str | None = None, ids: Iterable[str] | None = None) -> Any:
        """Return readings as a `pyarrow.Table`, a row per item, layer and head.

        Rows of captures that the index does not hold (superseded, deleted, never committed) are
        left out. `stored_readings` puts the table together again.

        Args:
            metric: One metric; by default all.
            ids: Items of the index; by default all.

        Raises:
            StoreError: There is no store, or it is damaged.
        """
        import pyarrow

        known = self.index()["id"].to_pylist()
        wanted = known if ids is None else list(set(known).intersection(ids))
        keep = compute().field("id").isin(pyarrow.array(wanted, pyarrow.string()))
        if metric is not None:
            keep = keep & (compute().field("metric") == metric)
        table = self.measured.scan(keep=keep)
        return table.sort_by([("id", "ascending"), ("row", "ascending")])

    def find(self, name: str) -> dict[str, Any]:
        """Return the row of the index of an id, or of a name that only one item bears.

        Raises:
            StoreError: No item bears it, or several do.
        """
        pc, index = compute(), self.index()
        either = pc.or_(pc.equal(index["id"], name), pc.equal(index["name"], name))
        rows = index.filter(either).to_pylist()
        if len(rows) != 1:
            found = "no item" if not rows else f"{len(rows)} items"
            raise StoreError(
                f"{found} of {self.address} called {name!r}; `attnscope store list` shows them all"
            )
        return rows[0]

    def open(self, name: str, cache: str | os.PathLike[str] | None = None) -> Trace:
        """Return a trace by its id, or by a name that only one item bears.

        On this machine the file is mapped. Elsewhere its header is read (one request, two where it
        is longer than 256 KiB), and then, as they are asked for, the factors: one request for each
        tensor of a layer, or for the slices of the heads that are asked for.

        Args:
            name: Id or name.
            cache: A folder of this machine: the trace is copied there whole, compared with the
                index's checksum, and mapped from there from then on.

        Raises:
            StoreError: The store holds no such trace, or another file than was put there.
            TraceError: The trace is damaged.
        """
        row = self.find(name)
        if not row["path"]:
            raise StoreError(f"{name!r} was measured only: {self.address} holds no trace of it")
        return opened(self.files, row, None if cache is None else Path(cache))

    # --- what is done to it -----------------------------------------------------------------

    def add(self, trace: Trace, **fields: Any) -> str:
        """Put a trace into the store, and return its id; when it returns it is committed.

        Args:
            trace: What was captured.
            fields: Other fields of the `Deposit`: `name`, `tags`, `readings`, `item`.

        Raises:
            TraceError: The trace cannot be stored.
        """
        return self.append([Deposit(trace=trace, **fields)])[0]

    def append(self, deposits: Sequence[Deposit]) -> list[str]:
        """Put several items into the store in one commit, and return their ids.

        Raises:
            TraceError: A trace cannot be stored; then nothing is committed.
        """
        self._mark()
        events = [deposited(self.files, deposit) for deposit in deposits]
        pairs = zip(events, deposits, strict=True)
        readings = {event.id: deposit.measured for event, deposit in pairs if deposit.measured}
        if readings:
            self.measured.commit(reading_table(readings))
        self.record(events)
        return [event.id for event in events]

    def tag(self, ids: Iterable[str], add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Give items tags, and take tags from them, in one commit.

        Raises:
            StoreError: The index holds no item of such an id.
        """
        change: dict[str, Any] = {"tags": tuple(add), "removed_tags": tuple(remove)}
        chosen = self._known(ids)
        self.record(
            [Event(kind="tags", id=row["id"], item=row["item"], **change) for row in chosen]
        )

    def delete(self, ids: Iterable[str]) -> None:
        """Delete items for good: their events say so, and then their traces are removed.

        Later captures of the same items that were not counted go, too. Readings are left out from
        then on, and stay in their files.

        Raises:
            StoreError: The index holds no item of such an id.
        """
        import pyarrow

        pc = compute()

        items = pyarrow.array([row["item"] for row in self._known(ids)], pyarrow.string())
        log = self.events.read()
        kinds = pyarrow.array(["trace", "readings"])
        own = log.filter(
            pc.and_(pc.is_in(log["item"], value_set=items), pc.is_in(log["kind"], value_set=kinds))
        ).to_pylist()
        self.record([Event(kind="deletion", id=row["id"], item=row["item"]) for row in own])
        self.files.remove([row["path"] for row in own if row["path"]])

    def compact(self, most_bytes: int = _COMPACT_BYTES) -> dict[str, Fold]:
        """Merge the small Parquet files of index and readings; what was committed stays.

        Others may read, commit and compact meanwhile.

        Args:
            most_bytes: Files as large as this stay as they are.

        Raises:
            StoreError: There is no store, or it is damaged.
        """
        self.require()
        logs = {"index": self.events, "readings": self.measured}
        return {name: log.compact(most_bytes) for name, log in logs.items()}

    def record(self, events: list[Event]) -> None:
        """Append events to the index in one commit."""
        self._mark()
        if events:
            self.events.commit(event_table(events))

    def require(self) -> None:
        """Refuse an address without a store.

        Raises:
            StoreError: There is no store.
        """
        if not self.exists:
            raise StoreError(
                f"there is no store at {self.address}: no {MARKER}; "
                "`attnscope capture MODEL DATASET --output STORE` or TraceStore.add makes one"
            )

    # --- inside -----------------------------------------------------------------------------

    def _known(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        wanted = list(dict.fromkeys(ids))
        rows = {row["id"]: row for row in self.index().select(["id", "item"]).to_pylist()}
        unknown = [name for name in wanted if name not in rows]
        if unknown:
            raise StoreError(f"{self.address} holds no item of the id {', '.join(unknown)}")
        return [rows[name] for name in wanted]

    def _mark(self) -> None:
        if not self.exists:
            put_marker(self.files)
            self._marked = True

    def _glob(self, log: FragmentLog) -> str:
        return self.files.fs.unstrip_protocol(self.files.path(f"{log.folder}/*.parquet")).replace(
            "file://", ""
        )
