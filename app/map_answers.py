"""What the map on the screen asks for, and the packet of facts and tiles that answers it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attnscope.figures import TILE, ColorStops, Scale, TilePyramid, hex_color

__all__ = [
    "Part",
    "Question",
    "cells_of_view",
    "packet",
    "read_question",
    "scale_facts",
    "tiles_of_view",
]

_MOST_TILES = 64
_COLORS = 256

Part = tuple[int, int, int, int]
"""First query, the one behind the last, first key, the one behind the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a map on the screen shows, and which tiles it lacks.

    Attributes:
        map: Which map it believes to show.
        part: The positions it shows.
        level: The level whose cells it shows.
        wanted: Rows and columns of the tiles that it lacks.
        serial: Number of the question.
    """

    map: str
    part: Part
    level: int
    wanted: tuple[tuple[int, int], ...]
    serial: int


def read_question(asked: Any, pyramid: TilePyramid) -> Question | None:
    """Return a question that came from a browser, none where it makes no sense for this pyramid.

    What it shows is cut to the map, and never more than a screen full of tiles is given.
    """
    try:
        top, bottom, left, right = (int(number) for number in asked["view"])
        level = int(asked["level"])
        wanted = tuple((int(row), int(column)) for row, column in asked["want"][:_MOST_TILES])
        question = Question(
            map=str(asked["map"]),
            part=_inside((top, bottom, left, right), pyramid),
            level=level,
            wanted=wanted,
            serial=int(asked["serial"]),
        )
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    if not 0 <= level <= pyramid.top or len(tiles_of_view(pyramid, question)) > _MOST_TILES:
        return None
    rows, columns = pyramid.grid(level)
    known = all(0 <= row < rows and 0 <= column < columns for row, column in wanted)
    return question if known else None


def tiles_of_view(pyramid: TilePyramid, question: Question) -> list[tuple[int, int]]:
    """Return rows and columns of the tiles of a view that hold anything."""
    top, bottom, left, right = question.part
    span = TILE * 2**question.level
    return [
        (row, column)
        for row in range(top // span, (bottom - 1) // span + 1)
        for column in range(left // span, (right - 1) // span + 1)
        if column * span < pyramid.source.key_stop((row + 1) * span)
    ]


def cells_of_view(pyramid: TilePyramid, question: Question) -> tuple[range, range]:
    """Return the rows and columns of cells that a view shows."""
    top, bottom, left, right = question.part
    step = 2**question.level
    return range(top // step, -(-bottom // step)), range(left // step, -(-right // step))


def scale_facts(scale: Scale) -> dict[str, Any]:
    """Return a scale as the map on the screen needs it."""
    return {
        "low": scale.low,
        "high": scale.high,
        "logarithmic": scale.logarithmic,
        "colors": _ramp(scale.colors),
        "ticks": list(zip(*scale.ticks, strict=True)),
        "label": scale.label,
    }


def packet(
    facts: Mapping[str, Any], tiles: Sequence[tuple[tuple[int, int, int], bool, Tensor]]
) -> bytes:
    """Return facts and tiles as bytes: the length of the facts, the facts, the tiles' numbers.

    Args:
        facts: What the map has to know, as JSON can say it.
        tiles: Level, row and column of each tile, whether it is final, and its cells, which are
            sent as float32 where they are single entries, else as bfloat16: within 1/256.
    """
    listed = [
        {
            **dict(zip(("level", "row", "column"), place, strict=True)),
            "rows": cells.shape[0],
            "columns": cells.shape[1],
            "final": final,
        }
        for place, final, cells in tiles
    ]
    head = json.dumps({**facts, "tiles": listed}).encode()
    numbers = (_bytes_of(cells, exact=place[0] == 0) for place, _, cells in tiles)
    return b"".join([len(head).to_bytes(4, "little"), head, *numbers])


def _bytes_of(cells: Tensor, *, exact: bool) -> bytes:
    if exact:
        return cells.numpy().astype("<f4").tobytes()
    return cells.bfloat16().view(torch.int16).numpy().astype("<i2").tobytes()


@lru_cache(maxsize=8)
def _ramp(colors: ColorStops) -> list[str]:
    return [hex_color(colors.at(step / (_COLORS - 1))) for step in range(_COLORS)]


def _inside(part: Part, pyramid: TilePyramid) -> Part:
    top, bottom, left, right = part
    top, left = _clamped(top, pyramid.source.queries), _clamped(left, pyramid.source.keys)
    bottom = max(top + 1, min(bottom, pyramid.source.queries))
    return top, bottom, left, max(left + 1, min(right, pyramid.source.keys))


def _clamped(position: int, length: int) -> int:
    return min(max(position, 0), length - 1)
