"""`watched`: a progress bar with rate and time left, shown on a terminal only."""

from collections.abc import Iterator, Sequence
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


def watched(items: Sequence[_Item], what: str) -> Iterator[_Item]:
    """Yield items while a bar tells how far they are; for one item there is no bar.

    Args:
        items: What is worked on.
        what: What is done to them.
    """
    console = screen(errors=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal or len(items) < 2
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        yield from progress.track(items, description=what)
