"""`capture_dataset`: what a store does not hold yet is captured into it."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from attnscope.probes.bulk.engines import Engine, run_here
from attnscope.probes.bulk.item import BadItem, Item, keyed
from attnscope.probes.bulk.worker import Outcome, Worker
from attnscope.probes.errors import CaptureError
from attnscope.traces import Deposit

__all__ = ["Run", "capture_dataset"]

_COMPACT_SECONDS = 60.0
_COMPACT_SHARE = 10
"""A compaction waits ten times as long as the one before it took: it takes a tenth of the time."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run over a dataset that has begun.

    Attributes:
        total: Items that are to be captured.
        already: Items that the store held before.
        bad: Parts of the dataset that are no items.
        outcomes: What becomes of each; the run goes on as they are asked for.
    """

    total: int
    already: int
    bad: list[BadItem]
    outcomes: Iterator[Outcome]


def capture_dataset(
    worker: Worker,
    items: Iterable[Item | BadItem],
    engine: Engine = run_here,
) -> Run:
    """Capture what a store does not hold yet, the longest items first, and say what becomes of it.

    An item that the store holds is left out, so that a run that was killed goes on where it
    stopped: nothing is lost, and nothing counts twice. Items that failed are tried again. What is
    no item is recorded in the store as an error. Sorted by length, memory that an item leaves
    fits the next, what does not fit fails at once, and no long item is left for the end.

    Args:
        worker: The model, the store, and what to capture.
        items: The items of a dataset.
        engine: Where the work is done.

    Raises:
        CaptureError: There is no item.
        StoreError: The store is damaged.
    """
    good: list[tuple[str, Item]] = []
    bad: list[tuple[str, BadItem]] = []
    for key, item in keyed(items, worker.plan):
        if isinstance(item, Item):
            good.append((key, item))
        else:
            bad.append((key, item))
    if not good and not bad:
        raise CaptureError("the dataset holds no item")
    store = worker.store
    done = set(store.index()["item"].to_pylist()) if store.exists else set()
    todo = [pair for pair in good if pair[0] not in done]
    todo.sort(key=lambda pair: (-pair[1].size, pair[0]))
    store.append([Deposit(item=key, name=one.name, error=one.reason) for key, one in bad])
    outcomes = _compacting(worker, engine(worker, todo)) if todo else iter(())
    return Run(len(todo), len(good) - len(todo), [one for _, one in bad], outcomes)


def _compacting(worker: Worker, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Yield outcomes, and merge the store's small files now and then, and at the end."""
    due = time.monotonic() + _COMPACT_SECONDS
    for outcome in outcomes:
        yield outcome
        if time.monotonic() >= due:
            start = time.monotonic()
            worker.store.compact()
            took = time.monotonic() - start
            due = time.monotonic() + max(_COMPACT_SECONDS, _COMPACT_SHARE * took)
    worker.store.compact()
