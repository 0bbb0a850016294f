"""`watched`: a progress bar with rate and time left, shown on a terminal only."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from attnscope.app.screen import screen

__all__ = ["Rate", "watched"]

_Item = TypeVar("_Item")


class Rate(ProgressColumn):
    """How many items are done per second, or how many seconds one takes."""

    def render(self, task: Task) -> Text:
        """Return the rate as text, nothing before it is known."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


def watched(items: Iterable[_Item], what: str, total: int | None = None) -> Iterator[_Item]:
    """Yield items while a bar tells how far they are; for one item there is no bar.

    Args:
        items: What is worked on.
        what: What is done to them.
        total: How many there are; by default their own length, where they have one.
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    console = screen(errors=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal or (count is not None and count < 2)
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        yield from progress.track(items, total=count, description=what)
