"""`token_ribbon`: a text whose tokens are tinted by a number each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from attnscope.figures.display import printed_bundle
from attnscope.figures.palette import TEAL, Mark, tints
from attnscope.figures.quantity import (
    positions_of,
    precise_values,
    single_axis,
    tokens_of,
)
from attnscope.figures.ribbon_print import printed_ribbon
from attnscope.figures.ribbon_screen import ribbon_markup, ribbon_style
from attnscope.figures.ribbon_words import RibbonLegend, RibbonWord
from attnscope.figures.scale import Scale, linear_scale, short_number
from attnscope.figures.token_text import line_breaks, plain
from attnscope.metrics import Reading

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["TokenRibbon", "token_ribbon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRibbon:
    """A text and one number per token.

    Attributes:
        tokens: The tokens as they are: untrusted text.
        positions: Where the tokens stand in the whole text.
        values: One number per token; NaN where there is none.
        scale: The colors on white paper; on a screen the same tints lie over the page's ground.
        tint: The tint of the largest value where none is negative.
        marks: The positions of each role.
        title: What is shown.
        caption: Where the numbers come from.
    """

    tokens: tuple[str, ...]
    positions: tuple[int, ...]
    values: Float[Tensor, " token"]
    scale: Scale
    tint: str
    marks: Mapping[Mark, frozenset[int]]
    title: str
    caption: str

    @property
    def words(self) -> list[RibbonWord]:
        """Return the tokens as both libraries set them."""
        fractions = self.scale.fractions(self.values).tolist()
        return [self._word(place, fraction) for place, fraction in enumerate(fractions)]

    @property
    def legend(self) -> RibbonLegend:
        """Return what stands around the tokens."""
        return RibbonLegend(
            title=self.title,
            caption=self.caption,
            scale=self.scale,
            tint=self.tint,
            marks=tuple(self.marks),
            missing=bool(self.values.isnan().any()),
        )

    def markup(self) -> str:
        """Return the ribbon as HTML for a page that holds its style sheet already."""
        return ribbon_markup(self.words, self.legend)

    def html(self) -> str:
        """Return the ribbon as HTML for any page, light or dark; every token is escaped."""
        return f"<style>{ribbon_style()}</style>{self.markup()}"

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the ribbon for paper: lines are wrapped, missing numbers hatched."""
        return printed_ribbon(self.words, self.legend)

    def _repr_html_(self) -> str:
        return self.html()

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"text/html": self.html(), **printed_bundle(self)}

    def _word(self, place: int, fraction: float) -> RibbonWord:
        token, position = self.tokens[place], self.positions[place]
        missing = bool(self.values[place].isnan())
        number = short_number(float(self.values[place]))
        tip = "no value" if missing else f"{number} {self.scale.label}".rstrip()
        return RibbonWord(
            text=plain(token),
            fraction=None if missing else fraction,
            marks=tuple(mark for mark, places in self.marks.items() if position in places),
            breaks=line_breaks(token),
            tip=f"{position}  {plain(token)}\n{tip}",
        )


def token_ribbon(
    reading: Reading,
    *,
    marks: Mapping[Mark, Iterable[int]] | None = None,
    limits: tuple[float, float] | None = None,
    tint: str = TEAL,
    title: str = "",
) -> TokenRibbon:
    """Return the text of a reading, each token tinted by its value.

    Args:
        reading: One number per token: its only axis is token, query or key.
        marks: The positions of each role, counted in the whole text.
        limits: The numbers of no tint and of the full tint; by default from the reading.
        tint: The tint of the largest value, as `#rrggbb`; what has a sign is red and blue.
        title: What to write above; by default the reading's title.

    Raises:
        FigureError: The reading has other axes, or no token texts.
    """
    axis = single_axis(reading, "token_ribbon")
    values = precise_values(reading)
    return TokenRibbon(
        tokens=tokens_of(reading, axis),
        positions=positions_of(reading, axis),
        values=values,
        scale=linear_scale(
            values, label=reading.unit, bounds=reading.bounds, limits=limits, palette=tints(tint)
        ),
        tint=tint,
        marks={mark: frozenset(positions) for mark, positions in (marks or {}).items()},
        title=title or reading.title or reading.name,
        caption=reading.paper,
    )
