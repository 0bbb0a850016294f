"""`reading_pictures`: the readings that a trace keeps, all there is to show without attention."""

import html
from collections.abc import Mapping
from types import MappingProxyType

from attnscope.figures.errors import FigureError
from attnscope.figures.grids import HeadGrid, head_grid
from attnscope.figures.quantity import label_of
from attnscope.figures.report_page import Section, embedded
from attnscope.figures.report_tables import fact_list
from attnscope.figures.report_words import EXPLANATIONS, unit_and_range
from attnscope.figures.ribbons import TokenRibbon, token_ribbon
from attnscope.metrics import Reading
from attnscope.traces import Trace

__all__ = ["kept_readings", "reading_pictures", "reading_sections"]

_TOKEN_AXES = ("query", "key", "token")


def kept_readings(trace: Trace) -> Mapping[str, Reading]:
    """Return the readings that a trace keeps, by the names that it keeps them under.

    Raises:
        FigureError: It keeps none.
    """
    if not trace.readings:
        raise FigureError(
            "nothing to show: this trace keeps neither attention nor readings; "
            "`attnscope reduce --readings METRICS --readings-only` keeps readings"
        )
    return MappingProxyType(
        {name: Reading(**dict(kept.facts())) for name, kept in trace.readings.items()}
    )


def reading_pictures(trace: Trace) -> dict[str, HeadGrid | TokenRibbon]:
    """Return the pictures of the readings that a trace keeps; of those that have one, by name.

    What is measured of heads is a grid, what is measured of tokens a tinted text; further axes are
    averaged over.

    Raises:
        FigureError: It keeps none.
    """
    drawn = {name: _picture(reading) for name, reading in kept_readings(trace).items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def reading_sections(trace: Trace) -> list[Section]:
    """Return the sections of a report on a trace that keeps readings, and no attention.

    Raises:
        FigureError: It keeps no readings either.
    """
    readings, pictures = kept_readings(trace), reading_pictures(trace)
    heads = [
        _grid(readings[name], own) for name, own in pictures.items() if isinstance(own, HeadGrid)
    ]
    texts = [own.markup() for own in pictures.values() if isinstance(own, TokenRibbon)]
    sections = [
        ("overview", "Overview", _overview(trace, readings)),
        ("text", "The text", "".join(texts)),
        ("heads", "Heads", "".join(heads)),
        ("numbers", "What the numbers mean", _words(readings)),
    ]
    return [section for section in sections if section[2]]


def _picture(reading: Reading) -> HeadGrid | TokenRibbon | None:
    if {"layer", "head"} <= set(reading.axes):
        return head_grid(_over(reading, "layer", "head"))
    tokens = [axis for axis in _TOKEN_AXES if axis in reading.axes and axis in reading.coordinates]
    return token_ribbon(_over(reading, tokens[0])) if tokens else None


def _over(reading: Reading, *axes: str) -> Reading:
    return reading.mean(*(axis for axis in reading.axes if axis not in axes))


def _overview(trace: Trace, readings: Mapping[str, Reading]) -> str:
    facts = [("tokens", f"{len(trace.tokens):,}")]
    facts += [
        (reading.title or name, f"{_sizes(reading)}<small>{html.escape(reading.stack)}</small>")
        for name, reading in readings.items()
    ]
    words = (
        '<p class="note">This trace keeps readings, and no attention: maps, and what was not '
        "measured before the attention was left out, cannot be shown.</p>"
    )
    return words + fact_list(facts, "strong")


def _sizes(reading: Reading) -> str:
    sizes = zip(reading.axes, reading.values.shape, strict=True)
    return html.escape(" x ".join(f"{size:,} {axis}" for axis, size in sizes) or "one number")


def _grid(reading: Reading, grid: HeadGrid) -> str:
    others = [axis for axis in reading.axes if axis not in ("layer", "head")]
    mean = f" Mean over every {' and '.join(others)}." if others else ""
    words = html.escape(EXPLANATIONS.get(reading.name, ""))
    caption = f'{html.escape(label_of(reading) + "." + mean)} <span class="soft">{words}</span>'
    return f"<figure><figcaption>{caption}</figcaption>{embedded(grid.plotly())}</figure>"


def _words(readings: Mapping[str, Reading]) -> str:
    items = [
        f"<dt>{html.escape(reading.title or name)} "
        f"<small>({html.escape(unit_and_range(reading))})</small></dt>"
        f"<dd>{html.escape(EXPLANATIONS.get(reading.name, ''))}</dd>"
        f'<dd class="paper">{html.escape(reading.paper)}</dd>'
        for name, reading in readings.items()
    ]
    return f'<dl class="words">{"".join(items)}</dl>'
