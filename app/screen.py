"""`screen`: where commands print, and how they show numbers and untrusted text."""

import os
import sys
from collections.abc import Iterable
from math import floor, isnan, log10
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["decimals_for", "plain_table", "print_paths", "screen", "visible", "written"]

_WIDTH_ELSEWHERE = 100


def screen(*, errors: bool = False) -> Console:
    """Return the console of standard output (or of errors).

    What goes to a file or a pipe is 100 columns wide unless `COLUMNS` says otherwise.
    """
    stream = sys.stderr if errors else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_ELSEWHERE
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def plain_table(*columns: str, title: str = "", caption: str = "", **options: Any) -> Table:
    """Return a table with a line below its head; columns whose name starts with `>` align right."""
    table = Table(
        title=title or None,
        caption=caption or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        pad_edge=False,
        **options,
    )
    for column in columns:
        side = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=side)
    return table


def print_paths(paths: Iterable[Path]) -> None:
    """Print the paths of files that were written, one per line and never broken."""
    console = screen()
    console.print("\nwritten:")
    for path in paths:
        console.print(f"  {path}", soft_wrap=True)


def visible(text: str) -> str:
    r"""Return untrusted text without anything that could steer a terminal.

    Example:
        >>> visible("one\n\x1b[31mtwo")
        'one↵<1b>[31mtwo'
    """
    return "".join(
        character if character.isprintable() else _NAMED.get(character, f"<{ord(character):02x}>")
        for character in text
    )


def decimals_for(values: Iterable[float]) -> int:
    """Return how many decimals show the largest of some numbers with four digits, three at most.

    Example:
        >>> decimals_for([0.2, 0.91]), decimals_for([3.0, 41.5]), decimals_for([12345.0])
        (3, 2, 0)
    """
    sizes = [abs(value) for value in values if not isnan(value) and value not in (0.0, *_INFINITE)]
    if not sizes:
        return 3
    return min(3, max(0, 3 - floor(log10(max(sizes)))))


def written(value: float, decimals: int) -> str:
    """Return a number for a column of numbers; a dash where there is none.

    Example:
        >>> written(0.12345, 3), written(float("nan"), 3), written(0.00002, 3)
        ('0.123', '-', '2e-05')
    """
    if isnan(value):
        return "-"
    if value != 0 and abs(value) < 0.5 * 10**-decimals:
        return f"{value:.0e}"
    return f"{value:.{decimals}f}"


_NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_INFINITE = (float("inf"), float("-inf"))
