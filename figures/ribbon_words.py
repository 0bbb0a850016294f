"""`RibbonWord` and `RibbonLegend`: a token ribbon, ready to be set as HTML or on paper."""

from dataclasses import dataclass

from attnscope.figures.palette import Mark
from attnscope.figures.scale import Scale

__all__ = ["RibbonLegend", "RibbonWord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RibbonWord:
    """A token as it is set.

    Attributes:
        text: What can be printed of it: untrusted text.
        fraction: Its place on the scale, None where it has no number.
        marks: Its roles.
        breaks: How many lines end before it and how many after it.
        tip: What it says when pointed at: untrusted text.
    """

    text: str
    fraction: float | None
    marks: tuple[Mark, ...]
    breaks: tuple[int, int]
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RibbonLegend:
    """What stands around the words.

    Attributes:
        title: What is shown.
        caption: Where the numbers come from.
        scale: The colors on white paper.
        tint: The tint of the largest value where none is negative.
        marks: The roles that are explained.
        missing: Whether some token has no number.
    """

    title: str
    caption: str
    scale: Scale
    tint: str
    marks: tuple[Mark, ...]
    missing: bool
