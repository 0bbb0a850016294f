"""`mark_of`: how a token that a credit rule selected is marked, by the role that it has."""

from dataclasses import replace

from attnscope.figures import ANCHOR, PREPLAN, Mark

__all__ = ["mark_of"]

_DOT = "\N{BLACK CIRCLE}"
_OTHER = Mark(name="", color="#7a7a7a", plotly="circle", matplotlib="o", glyph=_DOT)
_MARKS = {
    "anchor": ANCHOR,
    "dominated": replace(ANCHOR, name="dominated anchor", glyph="\N{WHITE DIAMOND}"),
    "preplan": PREPLAN,
    "introductory": replace(PREPLAN, name="introductory", glyph="\N{WHITE UP-POINTING TRIANGLE}"),
}


def mark_of(role: str) -> Mark:
    """Return the mark of a role; roles without one of their own have a dot."""
    return _MARKS[role] if role in _MARKS else replace(_OTHER, name=role)
