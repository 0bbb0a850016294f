"""Colors and marks: one definition, drawn alike by both libraries and told apart by every eye.

The sequential colors are viridis, the diverging ones ColorBrewer's RdBu; both keep their order for
color-blind readers and in grayscale. A mark has a color and a shape, so that neither alone has to
carry the meaning.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import matplotlib.colors

__all__ = [
    "ANCHOR",
    "BLUE",
    "DIVERGING",
    "GLOBAL",
    "LOCAL",
    "MUTED",
    "NEUTRAL",
    "PREPLAN",
    "RED",
    "SEQUENTIAL",
    "TEAL",
    "TINT_STRENGTH",
    "VIVID",
    "ColorStops",
    "Mark",
    "Palette",
    "contrasting_ink",
    "hex_color",
    "tints",
]

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorStops:
    """A color scale as evenly spaced stops, straight lines in red, green and blue between them.

    Example:
        >>> ColorStops(name="gray", stops=("#000000", "#ffffff")).at(0.5)
        (0.5, 0.5, 0.5)
    """

    name: str
    stops: tuple[str, ...]

    def at(self, fraction: float) -> Rgb:
        """Return the color at a fraction of the scale, as red, green and blue from 0 to 1."""
        place = min(max(fraction, 0.0), 1.0) * (len(self.stops) - 1)
        below = min(int(place), len(self.stops) - 2)
        weight = place - below
        low, high = _rgb(self.stops[below]), _rgb(self.stops[below + 1])
        red, green, blue = (a + weight * (b - a) for a, b in zip(low, high, strict=True))
        return red, green, blue

    def plotly(self) -> list[list[float | str]]:
        """Return the scale in plotly's form."""
        last = len(self.stops) - 1
        return [[position / last, color] for position, color in enumerate(self.stops)]

    def matplotlib(self) -> "matplotlib.colors.LinearSegmentedColormap":
        """Return the scale as a matplotlib color map; what is missing stays transparent."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list(self.name, list(self.stops), N=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How one role is drawn wherever it appears.

    Attributes:
        name: What the legend says.
        color: Its color.
        plotly: The marker's name in plotly.
        matplotlib: The marker's name in matplotlib.
        glyph: The same shape as a character, for text.
    """

    name: str
    color: str
    plotly: str
    matplotlib: str
    glyph: str


SEQUENTIAL = ColorStops(
    name="viridis",
    stops=(
        *(
            "#440154",
            "#48186a",
            "#472d7b",
            "#424086",
            "#3b528b",
            "#33638d",
            "#2c728e",
            "#26828e",
            "#21918c",
        ),
        *("#1fa088", "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219", "#fde725"),
    ),
)
"""For what is never negative: from nothing (dark) to most (bright)."""

DIVERGING = ColorStops(
    name="red_blue",
    stops=(
        *("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7"),
        *("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
    ),
)
"""For what has a sign: blue below zero, white at zero, red above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colors of one kind of picture.

    Attributes:
        sequential: For what is never negative.
        diverging: For what has a sign; its middle is zero.
    """

    sequential: ColorStops
    diverging: ColorStops


VIVID = Palette(sequential=SEQUENTIAL, diverging=DIVERGING)
"""For cells without text."""

PREPLAN = Mark(
    name="preplan",
    color="#d55e00",
    plotly="triangle-up",
    matplotlib="^",
    glyph="\N{BLACK UP-POINTING TRIANGLE}",
)
"""Tokens that open a chunk, and what the local heads show."""

ANCHOR = Mark(
    name="anchor", color="#1b82c0", plotly="diamond", matplotlib="D", glyph="\N{BLACK DIAMOND}"
)
"""Tokens that later tokens read again, and what the global heads show."""

LOCAL = replace(PREPLAN, name="local head")
"""Heads that look near: preplan tokens are read off them, so they share their color and shape."""

GLOBAL = replace(ANCHOR, name="global head")
"""Heads that look far: anchor tokens are read off them."""

TEAL, BLUE, RED = "#1f9e89", "#2166ac", "#c8323f"
"""Tints without a role: what is never negative, what is below zero, what is above."""

NEUTRAL = "#7a7a7a"
"""For what is drawn without a role; readable on white and on black."""

MUTED = "#8f8f8f"
"""For frames, grids and what is missing."""

TINT_STRENGTH = 0.8
"""How much a full tint covers its ground; ink that is readable on the ground stays so."""


def tints(color: str) -> Palette:
    """Return the colors of a tinted text on white paper: from no tint to a full one."""
    return Palette(
        sequential=ColorStops(name=f"tint {color}", stops=("#ffffff", _on_white(color))),
        diverging=ColorStops(
            name="signed tint", stops=(_on_white(BLUE), "#ffffff", _on_white(RED))
        ),
    )


def contrasting_ink(color: Rgb) -> str:
    """Return black or white, whichever contrasts more with the color (WCAG relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def hex_color(color: Rgb) -> str:
    """Return red, green and blue from 0 to 1 as `#rrggbb`."""
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in color)


def _on_white(color: str) -> str:
    red, green, blue = (1 - TINT_STRENGTH * (1 - channel) for channel in _rgb(color))
    return hex_color((red, green, blue))


def _rgb(color: str) -> Rgb:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
