"""`printed_ribbon`: a token ribbon on paper, its lines wrapped by the true width of each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from attnscope.figures.canvas import matplotlib_canvas
from attnscope.figures.palette import Mark
from attnscope.figures.ribbon_words import RibbonLegend, RibbonWord
from attnscope.figures.scale import range_text, short_number

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["Spot", "printed_ribbon", "wrap"]

# All lengths are in points.
_WIDTH, _MARGIN, _FOOT = 504.0, 14.0, 40.0
_LINE, _BOX, _PAD, _GAP = 21.0, 13.0, 2.0, 1.5
_FONT_SIZE = 9.0
_PALE, _GRAY = "#f2f2f2", "#c4c4c4"  # the ground and the lines of what is missing

Point = tuple[float, float]
Color = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a word stands: its line, and the left edge and the width of its box."""

    line: int
    left: float
    width: float


def wrap(widths: Sequence[float], breaks: Sequence[tuple[int, int]], room: float) -> list[Spot]:
    """Return where boxes of these widths stand in lines of `room`.

    Args:
        widths: The width of each box.
        breaks: How many lines end before each box and how many after it.
        room: The width of a line.

    Example:
        >>> spots = wrap([30.0, 30.0, 30.0], [(0, 0), (0, 0), (0, 1)], 70.0)
        >>> [(spot.line, spot.left) for spot in spots]
        [(0, 0.0), (0, 31.5), (1, 0.0)]
    """
    spots, line, left = [], 0, 0.0
    for width, (before, after) in zip(widths, breaks, strict=True):
        if before or (left > 0 and left + width > room):
            line, left = line + max(before, 1), 0.0
        spots.append(Spot(line, left, width))
        line, left = (line + after, 0.0) if after else (line, left + width + _GAP)
    return spots


def printed_ribbon(words: Sequence[RibbonWord], legend: RibbonLegend) -> "matplotlib.figure.Figure":
    """Return the ribbon as a matplotlib figure, as tall as its text."""
    texts = [word.text or " " for word in words]
    widths = [width + 2 * _PAD for width in _text_widths(texts)]
    spots = wrap(widths, [word.breaks for word in words], _WIDTH - 2 * _MARGIN)
    head = 40.0 if legend.caption else 28.0
    height = head + (spots[-1].line + 1 if spots else 0) * _LINE + _FOOT
    figure = matplotlib_canvas(_WIDTH / 72, height / 72)
    figure.set_layout_engine("none")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(height, 0))
    page.set_axis_off()
    page.text(_MARGIN, 16, legend.title, fontsize=11, va="center", parse_math=False)
    small = {"fontsize": 7.5, "va": "center", "color": "#555555", "parse_math": False}
    page.text(_MARGIN, 29, legend.caption, **small)
    corners = [(_MARGIN + spot.left, head + spot.line * _LINE + 5) for spot in spots]
    _draw_boxes(page, corners, widths, [_color(legend, word.fraction) for word in words])
    _draw_marks(
        page,
        words,
        [(x + width / 2, y - 2.8) for (x, y), width in zip(corners, widths, strict=True)],
    )
    style = {"fontsize": _FONT_SIZE, "ha": "center", "va": "baseline", "parse_math": False}
    for text, (left, top), width in zip(texts, corners, widths, strict=True):
        page.text(left + width / 2, top + 9.6, text, **style)
    _draw_scale(page, legend, height - _FOOT + 16)
    _draw_key(page, legend, height - _FOOT + 30)
    return figure


def _text_widths(texts: Sequence[str]) -> list[float]:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer, font = RendererAgg(8, 8, 72), FontProperties(size=_FONT_SIZE)
    widths = {
        text: renderer.get_text_width_height_descent(text, font, False)[0]
        for text in dict.fromkeys(texts)
    }
    return [widths[text] for text in texts]


def _draw_boxes(
    page: "matplotlib.axes.Axes",
    corners: Sequence[Point],
    widths: Sequence[float],
    colors: Sequence[Color | None],
) -> None:
    """Draw all boxes as two collections: those with a color, and hatched those without."""
    from matplotlib.collections import PolyCollection

    outlines = [
        [(x, y), (x + width, y), (x + width, y + _BOX), (x, y + _BOX)]
        for (x, y), width in zip(corners, widths, strict=True)
    ]
    known = [place for place, color in enumerate(colors) if color is not None]
    missing = [outlines[place] for place, color in enumerate(colors) if color is None]
    filled = [colors[place] for place in known]
    page.add_collection(
        PolyCollection([outlines[place] for place in known], facecolors=filled, linewidths=0)
    )
    if missing:
        page.add_collection(
            PolyCollection(missing, hatch="/////", linewidths=0, facecolor=_PALE, edgecolor=_GRAY)
        )


def _draw_marks(
    page: "matplotlib.axes.Axes", words: Sequence[RibbonWord], points: Sequence[Point]
) -> None:
    """Draw each role's marks above its words, side by side where a word has several roles."""
    spots: dict[Mark, list[Point]] = {}
    for word, (x, y) in zip(words, points, strict=True):
        for i, mark in enumerate(word.marks):
            spots.setdefault(mark, []).append((x + 5 * (i - (len(word.marks) - 1) / 2), y))
    for mark, places in spots.items():
        _draw_mark(page, mark, places, 3.2)


def _draw_scale(page: "matplotlib.axes.Axes", legend: RibbonLegend, top: float) -> None:
    """Draw the colors with their ends, the unit and what is possible."""
    from matplotlib.patches import Rectangle

    scale, length, steps = legend.scale, 90.0, 45
    left = _MARGIN + _text_widths([short_number(scale.low)])[0] + 5
    for step in range(steps):
        corner, width = (left + step * length / steps, top - 4), length / steps + 0.2
        color = scale.colors.at((step + 0.5) / steps)
        page.add_patch(Rectangle(corner, width, 8, facecolor=color, linewidth=0))
    words = [f"{short_number(scale.high)} {scale.label}", range_text(scale.bounds)]
    style = {"fontsize": 8, "va": "center", "parse_math": False}
    page.text(_MARGIN, top, short_number(scale.low), **style)
    page.text(left + length + 5, top, "   ".join(filter(None, words)), **style)


def _draw_key(page: "matplotlib.axes.Axes", legend: RibbonLegend, top: float) -> None:
    """Draw what marks and hatching mean."""
    from matplotlib.patches import Rectangle

    names = [mark.name for mark in legend.marks] + ["no value"] * legend.missing
    lefts = list(accumulate((width + 26 for width in _text_widths(names)), initial=_MARGIN))
    for mark, left in zip(legend.marks, lefts, strict=False):
        _draw_mark(page, mark, [(left + 5, top)], 4.0)
    if legend.missing:
        corner = (lefts[len(legend.marks)], top - 4)
        page.add_patch(
            Rectangle(corner, 11, 8, hatch="/////", lw=0, facecolor=_PALE, edgecolor=_GRAY)
        )
    for name, left in zip(names, lefts, strict=False):
        page.text(left + 15, top, name, fontsize=8, va="center")


def _draw_mark(
    page: "matplotlib.axes.Axes", mark: Mark, points: Sequence[Point], size: float
) -> None:
    x, y = zip(*points, strict=True)
    look = {"color": mark.color, "markersize": size, "markeredgewidth": 0, "linestyle": "none"}
    page.plot(x, y, marker=mark.matplotlib, **look)


def _color(legend: RibbonLegend, fraction: float | None) -> Color | None:
    return None if fraction is None else legend.scale.colors.at(fraction)
