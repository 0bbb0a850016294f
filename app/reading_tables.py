"""`print_reading`: a reading as a table that fits a screen, whatever its axes."""

import re
from collections.abc import Sequence
from math import isnan

import pandas
from rich.console import Console

from attnscope.app.failures import CommandError
from attnscope.app.screen import decimals_for, plain_table, screen, visible, written
from attnscope.figures import HeadName
from attnscope.metrics import Reading

__all__ = ["parse_head", "print_reading"]

_ROWS = 30
_CELL = 8
_EDGE = 8
_COLUMNS_OF_GRIDS = 32
_HEAD = re.compile(r"[lL](-?\d{1,6})[hH.](-?\d{1,6})")


def parse_head(text: str) -> HeadName:
    """Return the head of a name as in `L5H1`.

    Raises:
        CommandError: The text is no such name.

    Example:
        >>> parse_head("L5H1")
        HeadName(layer=5, head=1)
    """
    match = _HEAD.fullmatch(text.strip())
    if match is None:
        raise CommandError(f"{text!r} is no head; write layer and head as in L5H1")
    return HeadName(int(match[1]), int(match[2]))


def print_reading(
    reading: Reading, *, head: HeadName | None = None, top: int | None = None
) -> None:
    """Print a reading: a number, a grid of heads, or a list of tokens.

    Values per token are those of one head, or the mean over all heads. A long list shows its
    highest values.

    Args:
        reading: What was measured.
        head: The head to show; by default the mean over heads.
        top: Show so many of the highest values only.

    Raises:
        CommandError: A head was asked for, and the reading is not of heads.
        MetricError: There is no such head.
    """
    console = screen()
    shown, whose = _reduced(reading, head)
    unit = f" [{reading.unit}]" if reading.unit else ""
    console.print(f"{reading.title or reading.name}{unit}{whose}", style="bold")
    if not shown.axes:
        console.print(written(float(shown.values), decimals_for([float(shown.values)])))
    elif top is None and _is_grid(shown):
        _print_grid(shown, console)
    else:
        _print_list(shown, top, console)
    console.print(_source(reading), style="dim")
    console.print()


def _reduced(reading: Reading, head: HeadName | None) -> tuple[Reading, str]:
    """Return what is shown of a reading, and whose numbers these are."""
    axes = set(reading.axes)
    if head is not None:
        if not {"layer", "head"} <= axes:
            raise CommandError(
                f"{reading.name} has no heads to show one of; it is of {reading.axes}"
            )
        chosen = reading.select(layer=head.layer, head=head.head)
        return chosen, f", layer {head.layer}, head {head.head}"
    if "head" in axes and axes - {"layer", "head"}:
        over = [axis for axis in ("layer", "head") if axis in axes]
        count = 1
        for axis in over:
            count *= reading.values.shape[reading.axes.index(axis)]
        return reading.mean(*over), f", mean over {count} heads"
    return reading, ""


def _is_grid(reading: Reading) -> bool:
    few = len(reading.axes) == 2 and reading.values.shape[1] <= _COLUMNS_OF_GRIDS
    return few or reading.axes == ("layer", "head")


def _print_grid(reading: Reading, console: Console) -> None:
    """Print a table of rows and columns, in blocks of columns that fit the screen."""
    down, across = reading.axes
    frame = reading.to_pandas().pivot(index=down, columns=across, values=reading.name)
    decimals = decimals_for(frame.to_numpy().ravel().tolist())
    per_block = max(1, (console.width - _EDGE) // _CELL)
    for start in range(0, frame.shape[1], per_block):
        block = frame.iloc[:, start : start + per_block]
        names = [
            f">{across} {number}" if i == 0 else f">{number}" for i, number in enumerate(block)
        ]
        table = plain_table(f">{down}", *names)
        for label, row in zip(block.index, block.to_numpy().tolist(), strict=True):
            table.add_row(str(label), *(written(value, decimals) for value in row))
        console.print(table)


def _print_list(reading: Reading, top: int | None, console: Console) -> None:
    """Print one row per value: all of them if they are few, else the highest."""
    frame = reading.to_pandas()
    known = frame.dropna(subset=[reading.name])
    count = top if top is not None else (_ROWS if len(frame) > 2 * _ROWS else len(frame))
    ranked = top is not None or count < len(frame)
    if ranked:
        frame = known.sort_values(reading.name, ascending=False, kind="stable").head(count)
    decimals = decimals_for(frame[reading.name].tolist())
    labels = [str(column) for column in frame.columns if column != reading.name]
    table = plain_table(*(_heading(frame, label) for label in labels), f">{reading.name}")
    for row in frame.itertuples(index=False):
        *places, value = row
        table.add_row(*(visible(str(place)) for place in places), written(float(value), decimals))
    console.print(table)
    if ranked and len(frame) < len(known):
        console.print(
            f"the {len(frame)} highest of {len(known):,} values (--top N shows N of them)"
        )


def _heading(frame: pandas.DataFrame, label: str) -> str:
    if label.endswith("_text"):
        return "text"
    return f">{label}" if pandas.api.types.is_numeric_dtype(frame[label]) else label


def _source(reading: Reading) -> str:
    low, high = (
        None if bound is None or isnan(bound) else f"{bound:g}" for bound in reading.bounds
    )
    span = f"{low} to {high}" if low and high else (f"{low} or more" if low else "")
    chosen = ", ".join(f"{name} {value}" for name, value in _told(reading))
    facts = (f"bounds: {span}" if span else "", chosen, reading.paper)
    return "; ".join(fact for fact in facts if fact)


def _told(reading: Reading) -> Sequence[tuple[str, object]]:
    return [(name, value) for name, value in reading.options.items() if value not in (None, ())]
