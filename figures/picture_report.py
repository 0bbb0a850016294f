"""`write_picture_report`: what a model says of pictures, and where each word of it looks."""

import html
import json
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.figures.errors import FigureError
from attnscope.figures.report_page import Section, page_file, report_page
from attnscope.figures.report_tables import fact_list
from attnscope.figures.token_text import plain, separator
from attnscope.traces import replacement

__all__ = ["AnsweredPicture", "PictureAnswer", "TextTable", "write_picture_report"]

_LARGEST, _SMALL = 512, 160


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureAnswer:
    """An answer to a picture, token by token.

    Attributes:
        tokens: What was said.
        cells: What each token's prediction gives to each patch; None where patches have no grid.
        measures: One number per token, by title; NaN where there is none.
        grounded: Tokens that name something that is in the picture.
        made_up: Tokens that name something that is not.
    """

    tokens: tuple[str, ...]
    cells: Float[Tensor, "token row column"] | None
    measures: Mapping[str, Float[Tensor, " token"]]
    grounded: frozenset[int] = field(default_factory=frozenset)
    made_up: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        """Refuse numbers that are not one per token."""
        lengths = {name: len(values) for name, values in self.measures.items()}
        if self.cells is not None:
            lengths["cells"] = len(self.cells)
        wrong = [f"{name} has {length}" for name, length in lengths.items() if length != self.count]
        if wrong:
            raise FigureError(f"an answer of {self.count} tokens, of which {', '.join(wrong)}")

    @property
    def count(self) -> int:
        """Return how many tokens were said."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredPicture:
    """A picture and the answers to it.

    Attributes:
        name: How it is called.
        picture: The picture, of Pillow, as far as the patches cover it.
        answers: The answer of each way of decoding.
        note: A line about it.
    """

    name: str
    picture: Any
    answers: Mapping[str, PictureAnswer]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of texts; columns whose name starts with `>` align right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_picture_report(
    path: str | os.PathLike[str],
    title: str,
    *,
    facts: Iterable[tuple[str, str]],
    tables: Sequence[TextTable] = (),
    pictures: Sequence[AnsweredPicture],
) -> Path:
    """Write one HTML file that shows pictures and what was said of them, and return its path.

    Choosing a token darkens the patches that its prediction does not look at. The page holds all it
    needs and loads nothing; it appears complete or not at all.

    Args:
        path: Where to write.
        title: The heading.
        facts: Names and texts that stand below it.
        tables: Scores.
        pictures: What to show.
    """
    sections: list[Section] = []
    if tables:
        sections.append(("scores", "Scores", _tables(tables)))
    sections += [
        (f"picture-{number}", shown.name, _card(shown))
        for number, shown in enumerate(pictures, start=1)
    ]
    lead = fact_list((name, html.escape(text)) for name, text in facts)
    page = report_page(
        title,
        lead + (_HOW if pictures else ""),
        sections,
        style=page_file("picture_report.css"),
        script=page_file("picture_report.js"),
    )
    target = Path(path)
    with replacement(target) as stream:
        stream.write(page.encode("utf-8"))
    return target


_HOW = (
    '<p class="soft">Point at a token, or walk through them with the tab key: the picture stays '
    "bright where the prediction of this token looks. "
    '<b class="there">Words like this</b> name something that is in the picture, '
    '<b class="made-up">words like this</b> something that is not. The higher the bar below a '
    "token, the larger the number that is chosen below the picture.</p>"
)


def _card(shown: AnsweredPicture) -> str:
    answers = "".join(_answer(way, answer) for way, answer in shown.answers.items())
    measures = dict.fromkeys(name for a in shown.answers.values() for name in a.measures)
    choices = "".join(f"<option>{html.escape(name)}</option>" for name in measures)
    note = f'<p class="soft">{html.escape(shown.note)}</p>' if shown.note else ""
    small = " pixels" if max(shown.picture.size) <= _SMALL else ""
    return (
        f'{note}<div class="seen"><div class="look">'
        f'<div class="frame"><img class="picture{small}" src="{_data_address(shown.picture)}" '
        f'alt="{html.escape(shown.name)}"><canvas></canvas></div>'
        f'<p class="reading">No token is chosen.</p>'
        f"<label>Bars: <select>{choices}</select></label></div>"
        f'<div class="answers">{answers}</div></div>'
    )


def _answer(way: str, answer: PictureAnswer) -> str:
    gap = separator(answer.tokens)
    words = gap.join(_token(answer, number) for number in range(answer.count))
    data = json.dumps(_numbers(answer)).replace("<", "\\u003c")
    return (
        f'<div class="answer"><h3>{html.escape(way)}</h3><p class="said">{words}</p>'
        f'<script type="application/json">{data}</script></div>'
    )


def _token(answer: PictureAnswer, number: int) -> str:
    kind = "made-up" if number in answer.made_up else "there" if number in answer.grounded else ""
    meaning = {"made-up": "not in the picture", "there": "in the picture"}.get(kind, "")
    label = f' title="{meaning}"' if meaning else ""
    text = html.escape(plain(answer.tokens[number]))
    return f'<button type="button" class="token {kind}"{label}>{text}</button>'


def _numbers(answer: PictureAnswer) -> dict[str, Any]:
    """Return what the page's script reads: cells as bytes, each token's brightest patch as 255."""
    found: dict[str, Any] = {
        "measures": {
            name: [None if x != x else float(f"{x:.4g}") for x in values.tolist()]
            for name, values in answer.measures.items()
        }
    }
    if answer.cells is not None and answer.count:
        cells = answer.cells.detach().float().cpu().clamp_min(0)
        peaks = cells.flatten(1).amax(1)
        scaled = cells / peaks.clamp_min(torch.finfo(torch.float32).tiny)[:, None, None]
        levels = (255 * scaled).round().to(torch.uint8)
        found |= {
            "grid": list(cells.shape[1:]),
            "peaks": [float(f"{x:.4g}") for x in peaks.tolist()],
            "cells": b64encode(levels.numpy().tobytes()).decode("ascii"),
        }
    return found


def _data_address(picture: Any) -> str:
    copy = picture.convert("RGB")
    is_small = max(copy.size) <= _SMALL
    copy.thumbnail((_LARGEST, _LARGEST))
    stream = BytesIO()
    copy.save(stream, **({"format": "PNG"} if is_small else {"format": "JPEG", "quality": 88}))
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{b64encode(stream.getvalue()).decode('ascii')}"


def _tables(tables: Sequence[TextTable]) -> str:
    """Return tables that unfold, the first one open."""
    return "".join(
        f"<details{' open' if not number else ''}><summary>{html.escape(table.title)}</summary>"
        f"{_table(table)}</details>"
        for number, table in enumerate(tables)
    )


def _table(table: TextTable) -> str:
    kinds = ["number" if name.startswith(">") else "" for name in table.columns]

    def cells(tag: str, texts: Sequence[str]) -> str:
        pairs = zip(kinds, texts, strict=True)
        return "".join(f'<{tag} class="{k}">{html.escape(text)}</{tag}>' for k, text in pairs)

    head = cells("th", [name.removeprefix(">") for name in table.columns])
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
