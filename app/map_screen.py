"""`screen_of`: the view that a browser shows of a map, as a picture, in words and as a packet."""

from dataclasses import dataclass
from typing import Any

from attnscope.app.map_answers import (
    Question,
    cells_of_view,
    packet,
    scale_facts,
    tiles_of_view,
)
from attnscope.app.map_choice import MapChoice
from attnscope.app.map_controls import Looks
from attnscope.app.map_pyramids import SharedPyramid
from attnscope.figures import (
    TILE,
    AttentionMap,
    CellWindow,
    StrongCell,
    map_view,
    strongest_cells,
    view_scale,
)
from attnscope.traces import TokenSequence

__all__ = ["MapScreen", "screen_of"]

_STRONGEST = 10
_HINT = "Drag to move; wheel, + and − to zoom; arrows to pan; point at a cell to read it."  # noqa: RUF001


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapScreen:
    """What is on the screen of a map.

    Attributes:
        picture: The view, for files and for words.
        strongest: Its largest cells.
        packet: What the browser is sent.
    """

    picture: AttentionMap
    strongest: list[StrongCell]
    packet: bytes


def screen_of(
    choice: MapChoice, looks: Looks, shared: SharedPyramid, question: Question
) -> MapScreen:
    """Return what a browser is to show.

    Args:
        choice: The map.
        looks: How it is shown.
        shared: Its pyramid.
        question: What the browser asked; tiles of another map or look are no use to it, and it
            gets all that the view needs.
    """
    name = f"{shared.identity} {looks.reduction.name}"
    wanted = question.wanted
    if question.map != name:
        wanted = tuple(tiles_of_view(shared.pyramid, question))
    queries, keys = choice.heads.sequences()
    window = _window(shared, question, looks)
    scale = view_scale(window, contrast=looks.contrast, logarithmic=looks.logarithmic)
    picture = map_view(
        window,
        scale,
        query_tokens=queries.tokens[: window.source.queries],
        key_tokens=keys.tokens[: window.source.keys],
        title=choice.title,
    )
    strongest = strongest_cells(picture, _STRONGEST)
    facts = {
        **_facts(picture, window, queries, keys),
        "map": name,
        "serial": question.serial,
        "view": question.part,
        "share": shared.pyramid.share,
        "top": shared.pyramid.top,
        "words": _words(picture, strongest),
        "scale": scale_facts(scale),
    }
    places = [(question.level, row, column) for row, column in wanted]
    tiles = [
        (place, _is_final(shared, place), shared.tile(place, looks.reduction)) for place in places
    ]
    return MapScreen(picture=picture, strongest=strongest, packet=packet(facts, tiles))


def _window(shared: SharedPyramid, question: Question, looks: Looks) -> CellWindow:
    rows, columns = cells_of_view(shared.pyramid, question)
    return CellWindow(
        source=shared.pyramid.source,
        level=question.level,
        rows=rows,
        columns=columns,
        reduction=looks.reduction,
        values=shared.window(question.level, rows, columns, looks.reduction),
    )


def _is_final(shared: SharedPyramid, place: tuple[int, int, int]) -> bool:
    level, row, _ = place
    stop = min((row + 1) * TILE, shared.pyramid.cells(level)[0])
    return shared.pyramid.is_filled(level, range(row * TILE, stop))


def _facts(
    picture: AttentionMap, window: CellWindow, queries: TokenSequence, keys: TokenSequence
) -> dict[str, Any]:
    """Return what the browser has to know of the map, and the words of the positions in view."""
    source = window.source
    named = {"query": picture.query_labels, "key": picture.key_labels}
    starts = {"query": window.queries.start, "key": window.keys.start}
    return {
        "queries": source.queries,
        "keys": source.keys,
        "offset": source.offset,
        "stretch": _stretch(source.queries, source.keys),
        "axes": source.axes,
        "reduction": window.reduction.name,
        "hint": _HINT,
        "tokens": {
            axis: {"start": starts[axis], "texts": texts if window.level == 0 else ()}
            for axis, texts in named.items()
        },
        "borders": {"query": _borders(queries), "key": _borders(keys)},
    }


def _borders(sequence: TokenSequence) -> list[int]:
    """Return where one role of a sequence ends and another begins."""
    edges = {edge for run in sequence.segments for edge in (run.start, run.stop)}
    return sorted(edges - {0, len(sequence)})


def _stretch(queries: int, keys: int) -> float:
    """Return how many times higher than wide cells are: 1, unless a map would be a mere strip."""
    ratio = keys / queries
    return ratio / 4 if ratio > 4 else ratio * 4 if ratio < 1 / 4 else 1.0


def _words(picture: AttentionMap, strongest: list[StrongCell]) -> str:
    """Return a view in words, for those who cannot see it."""
    rows, columns = picture.queries, picture.keys
    told = (
        f"{picture.title}: queries {rows.start} to {rows.stop - 1}, keys {columns.start} to "
        f"{columns.stop - 1}, {picture.caption}."
    )
    if not strongest:
        return told
    first = strongest[0]
    return f"{told} Strongest: {first.value:.3g} from query {first.query} to key {first.key}."
