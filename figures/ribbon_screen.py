"""`ribbon_markup`: a token ribbon as HTML.

Tints are translucent, so the text keeps the ink of the page, light or dark. Tokens are untrusted:
each is escaped, in the text and in its tooltip.
"""

import html
from collections.abc import Sequence
from importlib.resources import files

from attnscope.figures.palette import BLUE, RED, TINT_STRENGTH, Mark
from attnscope.figures.ribbon_words import RibbonLegend, RibbonWord
from attnscope.figures.scale import range_text, short_number

__all__ = ["ribbon_markup", "ribbon_style"]


def ribbon_style() -> str:
    """Return the style sheet that `ribbon_markup` relies on."""
    return files("attnscope.figures").joinpath("ribbon.css").read_text(encoding="utf-8")


def ribbon_markup(words: Sequence[RibbonWord], legend: RibbonLegend) -> str:
    """Return the ribbon as a `figure` element for a page that holds `ribbon_style`."""
    caption = f"<small>{html.escape(legend.caption)}</small>" if legend.caption else ""
    text = "".join(_word(word, legend) for word in words)
    return (
        '<figure class="attnscope-ribbon">'
        f"<figcaption>{html.escape(legend.title)}{caption}</figcaption>"
        f'<div class="tokens">{text}</div><div class="legend">{_legend(legend)}</div></figure>'
    )


def _word(word: RibbonWord, legend: RibbonLegend) -> str:
    look = ' class="missing"'
    if word.fraction is not None:
        look = f' style="background:{_tint(legend, word.fraction)}"'
    glyphs = "".join(map(_glyph, word.marks))
    above = f"<i>{glyphs}</i>" if glyphs else ""
    text = html.escape(word.text) or "&nbsp;"
    before, after = ("<br>" * count for count in word.breaks)
    return f'{before}<span{look} title="{html.escape(word.tip)}">{above}{text}</span>{after}'


def _legend(legend: RibbonLegend) -> str:
    scale = legend.scale
    stops = ",".join(_tint(legend, step / 8) for step in range(9))
    parts = [
        f"{short_number(scale.low)}"
        f'<b class="bar" style="background:linear-gradient(90deg,{stops})"></b>'
        f"{short_number(scale.high)} {html.escape(scale.label)}",
        range_text(scale.bounds),
        '<b class="missing"></b>no value' if legend.missing else "",
        *(_glyph(mark) + mark.name for mark in legend.marks),
    ]
    return "".join(f"<span>{part}</span>" for part in parts if part)


def _glyph(mark: Mark) -> str:
    return f'<b style="color:{mark.color}">{mark.glyph}</b>'


def _tint(legend: RibbonLegend, fraction: float) -> str:
    """Return the translucent color that lies over white paper as the scale's own color."""
    color, strength = legend.tint, fraction
    if legend.scale.diverging:
        color, strength = (RED if fraction > 0.5 else BLUE), abs(2 * fraction - 1)
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgb({red} {green} {blue}/{TINT_STRENGTH * strength:.3f})"
