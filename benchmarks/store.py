"""Stores of traces: how long an index of 100,000 takes to open, and writers that are killed.

`python -m benchmarks.store` opens the one, kills 200 of the others in the middle of their work, and
writes the table; `--kills 25` kills as many and says what became of what they had committed.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from attnscope.attention import SoftmaxAttention
from attnscope.traces import (
    Deposit,
    Observation,
    Provenance,
    RunFacts,
    Site,
    StoredReading,
    TokenSequence,
    Trace,
    TraceStore,
    survey_store,
)
from attnscope.traces.store_event import Event, event_table
from attnscope.traces.store_log import new_id
from benchmarks.results import write_section

_PAGE = Path(__file__).parents[1] / "traces" / "README.md"
_ITEMS, _PER_COMMIT = 100_000, 1_000
_READY, _KILLS = "ready", 200
_HEAD = "| | by the clock | of the processor |"


def fill(store: TraceStore, items: int, per_commit: int) -> None:
    """Commit entries of traces that nobody captured: what an index holds of so many.

    Ids, items and checksums are as hard to compress as real ones.
    """
    dice = random.Random(0)  # noqa: S311 - bytes, not secrets
    facts = RunFacts(
        model="org/model-7b",
        dtype="bfloat16",
        tokens=4096,
        segments={"prompt": 1024, "response": 3072},
        layers=28,
        heads=28,
    )
    for start in range(0, items, per_commit):
        events = []
        for number in range(start, min(start + per_commit, items)):
            name, item, digest = new_id(), *(dice.randbytes(16).hex() for _ in range(2))
            event = Event(
                kind="trace",
                id=name,
                item=f"{item}-0",
                name=f"item {number}",
                facts=facts,
                tags=("train" if number % 10 else "test",),
                metrics=("fai", "waad"),
                path=f"traces/{name[-2:]}/{name}.{item}-0.safetensors",
                bytes=1_000_000 + number,
                checksum=digest,
            )
            events.append(event)
        store.events.commit(event_table(events))


def seconds(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a call returns, and how long it took: by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = call()
    took, busy = time.perf_counter() - clock, time.process_time() - processor
    return result, f"{took:.2f} s | {busy:.2f} s"


def index_rows(folder: Path) -> list[str]:
    """Return the lines of the table of one large index."""
    import duckdb
    import polars

    store = TraceStore(folder / "store")
    store.record([])
    fill(store, _ITEMS, _PER_COMMIT)
    files = len(store.files.names("index"))
    scattered, first = seconds(lambda: TraceStore(store.address).index())
    _, folding = seconds(store.compact)
    size = sum(store.files.sizes("index").values())
    table, again = seconds(lambda: TraceStore(store.address).index())
    if not scattered.num_rows == table.num_rows == _ITEMS:
        raise RuntimeError(f"{scattered.num_rows} and {table.num_rows} of {_ITEMS} rows came back")
    rows = duckdb.read_parquet(store.index_glob).filter("list_contains(tags, 'test')")
    _, duck = seconds(lambda: rows.count("*").fetchall())
    frame = polars.scan_parquet(store.index_glob).filter(polars.col("tokens") > 4000)
    _, bear = seconds(lambda: frame.select("id").collect())
    lines = {
        f"open and read the index, {files} files": first,
        "compact it": folding,
        f"open and read the index, one file of {size / 1e6:.1f} MB": again,
        "DuckDB counts a tag": duck,
        "polars selects by length": bear,
    }
    return [f"| {name} | {value} |" for name, value in lines.items()]


# --- writers that are killed ----------------------------------------------------------------


@dataclass(slots=True)
class Massacre:
    """What became of a store whose writers were killed.

    Attributes:
        kills: Writers killed.
        committed: Items whose commit had returned before the kill.
        lost: Those of them that are not in the index, or not readable.
        extra: Items of the index whose commit had not returned, though it was whole.
        orphans: Trace files that no event names.
        damaged: Parquet files that cannot be read.
    """

    kills: int = 0
    committed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    extra: int = 0
    orphans: int = 0
    damaged: int = 0


def kill_writers(folder: Path, kills: int, seed: int) -> Massacre:
    """Kill writers of one store, each at a moment of its own, and look at what is left.

    Every writer begins with a look for what the ones before it had committed; then it commits,
    tags and compacts until it is killed with SIGKILL.

    Args:
        folder: The store.
        kills: How many writers are killed.
        seed: Which moments.
    """
    dice = random.Random(seed)  # noqa: S311 - moments, not secrets
    found = Massacre(kills=kills)
    for _ in range(kills):
        found.committed += _one_kill(folder, found.committed, dice.uniform(0.0, 0.5))
    store = TraceStore(folder)
    index = store.index().to_pylist()
    held = {row["id"] for row in index}
    measured = set(store.readings()["id"].to_pylist())
    for name in found.committed:
        if name not in held or name not in measured or not _readable(store, name):
            found.lost.append(name)
    report = survey_store(store)
    found.extra = len(held) - len(found.committed)
    found.orphans, found.damaged = len(report.orphans), len(report.damaged)
    return found


def _one_kill(folder: Path, before: list[str], delay: float) -> list[str]:
    """Return what one writer committed before it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)  # so that it notices if nobody listens any more
        try:
            _write_until_killed(folder, before, writing)
        finally:
            os._exit(1)
    os.close(writing)
    told = b""
    while _READY.encode() not in told:
        more = os.read(reading, 1 << 16)
        told += more
        if not more:
            os.waitpid(child, 0)
            raise RuntimeError(f"a writer found what was committed before it gone: {told!r}")
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 1 << 16):
        told += more
    os.close(reading)
    return told.decode().split()[1:]


def _write_until_killed(folder: Path, before: list[str], pipe: int) -> None:
    store = TraceStore(folder)
    held = set(store.index()["id"].to_pylist()) if store.exists else set()
    if not held >= set(before):
        os.write(pipe, f"{len(set(before) - held)} lost".encode())
        return
    os.write(pipe, f"{_READY}\n".encode())
    number = 0
    while True:
        reading = StoredReading(name="waad", values=torch.rand(1, 2, 8), axes=_AXES)
        deposits = [Deposit(trace=_trace(), readings=[reading], name=f"item {number}")]
        ids = store.append(deposits)
        os.write(pipe, "".join(f"{name}\n" for name in ids).encode())
        if number % 3 == 2:
            store.tag(ids, add=["third"])
        if number % 5 == 4:
            store.compact()
        number += 1


_AXES = ("layer", "head", "query")


def _trace() -> Trace:
    text = TokenSequence(name="text", tokens=tuple("abcdefgh"))
    seen = Observation(
        site=Site(stack="layers", layer=0, path="layers.0"),
        attention=SoftmaxAttention(torch.randn(2, 8, 4), torch.randn(2, 8, 4)),
        queries=text,
        keys=text,
    )
    return Trace(
        observations=[seen],
        sequences={"text": text},
        main_sequence="text",
        provenance=Provenance(model="random factors"),
    )


def _readable(store: TraceStore, name: str) -> bool:
    return store.open(name).attention[0].dense().shape == (2, 8, 8)


def told(found: Massacre) -> str:
    """Return what became of a store as one line."""
    return (
        f"kills {found.kills}, committed {len(found.committed)}, lost {len(found.lost)}, "
        f"whole though not confirmed {found.extra}, orphans {found.orphans}, "
        f"damaged files {found.damaged}"
    )


def main() -> None:
    """Kill and measure, and write both into the page of traces; or one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, help="only kill so many writers; 0: only the index")
    parser.add_argument("--seed", type=int, default=0, help="which moments")
    options = parser.parse_args()
    if options.kills != 0:  # before any thread: writers are forked
        with tempfile.TemporaryDirectory() as folder:
            found = kill_writers(Path(folder), options.kills or _KILLS, options.seed)
        print(told(found))
        if found.lost or found.damaged:
            raise SystemExit(1)
        if options.kills is None:
            write_section("kills", f"{told(found).capitalize()}.", _PAGE)
    if not options.kills:
        head = [f"{_ITEMS:,} entries, {_PER_COMMIT:,} of a commit.\n", _HEAD, "| --- | --: | --: |"]
        with tempfile.TemporaryDirectory() as folder:
            write_section("store", "\n".join([*head, *index_rows(Path(folder))]), _PAGE)


if __name__ == "__main__":
    main()
