"""The tables of a report: facts, heads, and the tokens that stand out, each in its context."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnscope.figures.quantity import label_of
from attnscope.figures.scale import even_numbers
from attnscope.figures.token_text import plain, separator
from attnscope.figures.trace_pictures import HEAD_METRICS, HeadName, TracePictures
from attnscope.metrics import Reading

__all__ = ["TABLE_ROWS", "fact_list", "head_table", "token_table"]

TABLE_ROWS = 10
"""How many heads or tokens a table shows."""

_AROUND = 6


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading as text, its cells as markup, and how they are set."""

    heading: str
    cells: Sequence[str]
    kind: str = ""


def fact_list(facts: Iterable[tuple[str, str]], kind: str = "") -> str:
    """Return names, as text, with what belongs to them, as markup."""
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{markup}</dd></div>" for name, markup in facts
    )
    return f'<dl class="facts {kind}">{items}</dl>'


def head_table(
    pictures: TracePictures, caption: str, heads: Sequence[HeadName], rows: int = TABLE_ROWS
) -> str:
    """Return the first heads of a ranking with all their numbers."""
    shown = heads[:rows]
    columns = [Column("head", [str(head) for head in shown])]
    for name in HEAD_METRICS:
        if name in pictures.readings:
            numbers = dict(pictures.heads_by(name))
            own = [numbers.get(head, float("nan")) for head in shown]
            texts = even_numbers(own, among=list(numbers.values()))
            columns.append(Column(label_of(pictures.readings[name]), texts, "number"))
    return _table(caption, columns)


def token_table(caption: str, reading: Reading, heading: str) -> str:
    """Return the tokens with the highest values of a token-level reading, each in its context."""
    axis = reading.axes[0]
    texts, positions = reading.coordinates[axis], reading.positions[axis]
    values = [float(value) for value in reading.values]
    known = reading.values.isnan().logical_not().nonzero().flatten().tolist()
    best = sorted(known, key=lambda place: (-values[place], place))[:TABLE_ROWS]
    return _table(
        caption,
        [
            Column("position", [str(positions[place]) for place in best], "number"),
            Column("token", [_in_context(texts, place) for place in best], "context"),
            Column(heading, even_numbers([values[place] for place in best]), "number"),
        ],
    )


def _in_context(texts: Sequence[str], place: int) -> str:
    start, stop = max(0, place - _AROUND), min(len(texts), place + 1 + _AROUND)
    gap = separator(texts)
    left = html.escape(plain("".join(text + gap for text in texts[start:place]))).lstrip()
    right = html.escape(plain("".join(gap + text for text in texts[place + 1 : stop])))
    opening, closing = "… " if start else "", " …" if stop < len(texts) else ""
    return f"{opening}{left}<b>{html.escape(plain(texts[place]))}</b>{right}{closing}"


def _table(caption: str, columns: Sequence[Column]) -> str:
    head = "".join(f'<th class="{c.kind}">{html.escape(c.heading)}</th>' for c in columns)
    rows = zip(*(column.cells for column in columns), strict=True)
    kinds = [column.kind for column in columns]
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{k}">{cell}</td>' for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
