"""`Engine`: where the items of a dataset are worked on; `run_here` does it in this process."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from attnscope.probes.bulk.item import Item
from attnscope.probes.bulk.worker import Outcome, Worker

__all__ = ["Engine", "run_here"]


@runtime_checkable
class Engine(Protocol):
    """Hands items to workers, and yields what became of each, in any order."""

    def __call__(self, worker: Worker, items: Sequence[tuple[str, Item]]) -> Iterator[Outcome]:
        """Yield what became of each item."""
        ...


def run_here(worker: Worker, items: Sequence[tuple[str, Item]]) -> Iterator[Outcome]:
    """Work on items one by one in this process, and commit each by itself.

    What was committed stays when the process is killed; the item that it was at is lost, and
    captured the next time.
    """
    for item in items:
        yield from worker([item])
