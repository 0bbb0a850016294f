"""`Scale`: which number gets which color, decided once so that both libraries draw the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from attnscope.figures.errors import FigureError
from attnscope.figures.palette import VIVID, ColorStops, Palette

__all__ = [
    "Bounds",
    "Scale",
    "even_numbers",
    "linear_scale",
    "logarithmic_scale",
    "range_text",
    "short_number",
]

Bounds = tuple[float | None, float | None]

DECADES = 4
"""Powers of ten that logarithmic colors tell apart below the largest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A color scale from `low` to `high`, in drawn numbers.

    Attributes:
        low: The drawn number of the first color.
        high: The drawn number of the last color.
        colors: The colors between them.
        label: The quantity with its unit.
        bounds: What values the quantity can take at all; None where open.
        whole: Whether only whole numbers mean something.
        diverging: Whether the middle of the scale is zero and the colors tell the sign.
        logarithmic: Whether drawn numbers are powers of ten.
    """

    low: float
    high: float
    colors: ColorStops
    label: str
    bounds: Bounds = (None, None)
    whole: bool = False
    diverging: bool = False
    logarithmic: bool = False

    def drawn(self, values: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return the numbers that the libraries draw: powers of ten, or the values themselves."""
        return values.clamp(min=10**self.low).log10() if self.logarithmic else values

    def fractions(self, values: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return where each value lies between first color (0) and last (1); NaN stays NaN."""
        return ((self.drawn(values) - self.low) / (self.high - self.low)).clamp(0, 1)

    @property
    def ticks(self) -> tuple[list[float], list[str]]:
        """Return drawn numbers and their texts for the legend, in round steps or powers of ten."""
        if not self.logarithmic:
            step = max(_round_step((self.high - self.low) / 4), 1.0 if self.whole else 0.0)
            steps = range(
                math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1
            )
            return [i * step for i in steps], [short_number(i * step) for i in steps]
        powers = range(math.floor(self.low) + 1, math.ceil(self.high))
        numbers = [self.low, *map(float, powers), self.high]
        numbers = [n for n in numbers[:-1] if self.high - n > 0.25] + [self.high]
        return numbers, [("≤" if n == self.low else "") + short_number(10**n) for n in numbers]


def linear_scale(
    values: Float[Tensor, "*axes"],
    *,
    label: str,
    bounds: Bounds,
    limits: tuple[float, float] | None = None,
    palette: Palette = VIVID,
) -> Scale:
    """Return the scale of a quantity: diverging around zero where it can take both signs.

    Without `limits`, sequential colors start at the quantity's lower bound, so that the first color
    means the same everywhere, and end at the largest value shown, so that differences are seen;
    diverging ones end at the largest size on both sides.

    Args:
        values: The numbers to be shown; NaN and infinite ones do not count.
        label: The quantity with its unit.
        bounds: What values the quantity can take at all; None where open.
        limits: The numbers of the first and the last color, to compare several pictures.
        palette: Where the colors come from.
    """
    lower, upper = (_finite(bound) for bound in bounds)
    both_signs = (lower is None or lower < 0) and (upper is None or upper > 0)
    known = values[values.isfinite()]
    least, most = (float(known.min()), float(known.max())) if known.numel() else (0.0, 1.0)
    if limits is not None:
        low, high = limits
    elif both_signs:
        high = max(abs(least), abs(most))
        low = -high
    else:
        low, high = (
            (least if lower is None else lower),
            (0.0 if lower is None and upper == 0 else most),
        )
    if high <= low:
        high = low + 1.0
    colors = palette.diverging if both_signs else palette.sequential
    return Scale(
        low=low, high=high, colors=colors, label=label, bounds=(lower, upper), diverging=both_signs
    )


def logarithmic_scale(scale: Scale, values: Float[Tensor, "*axes"]) -> Scale:
    """Return the scale in powers of ten, four of them; what lies below takes the first color.

    Raises:
        FigureError: The quantity can be negative, or nothing shown is above zero.
    """
    if scale.diverging:
        raise FigureError(
            f"{scale.label} can be negative and has no logarithm; draw it with linear colors"
        )
    known = values[values.isfinite() & (values > 0)]
    if not known.numel():
        raise FigureError(f"no value of {scale.label} is above zero, so none has a logarithm")
    high = math.log10(float(known.max()))
    least = math.floor(math.log10(float(known.min())))
    low = float(max(math.floor(high) - DECADES, min(least, math.ceil(high) - 1)))
    return replace(scale, low=low, high=high, logarithmic=True)


def short_number(number: float) -> str:
    """Return a number in three significant digits, without an exponent where it stays short.

    Example:
        >>> [short_number(x) for x in (0.12345, 1234.0, 0.00001, float('nan'))]
        ['0.123', '1,234', '1e-5', 'none']
    """
    if math.isnan(number):
        return "none"
    if abs(number) >= 1000:
        return f"{number:,.0f}" if abs(number) < 1e6 else _short_power(number)
    if number != 0 and abs(number) < 1e-3:
        return _short_power(number)
    return f"{number:.3g}"


def _short_power(number: float) -> str:
    digits, power = f"{number:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def even_numbers(numbers: Sequence[float], among: Sequence[float] = ()) -> list[str]:
    """Return numbers with equally many decimals, three digits for the largest; nothing for NaN.

    Args:
        numbers: What to write.
        among: Other numbers that are written alike.

    Example:
        >>> even_numbers([0.4512, 0.0000001, float("nan")]), even_numbers([58.31, 0.32])
        (['0.451', '0.000', ''], ['58.3', '0.3'])
    """
    largest = max(
        (abs(number) for number in (*numbers, *among) if math.isfinite(number)), default=0.0
    )
    decimals = 2 - math.floor(math.log10(largest)) if largest > 0 else 0
    if decimals > 6:
        return ["" if math.isnan(number) else short_number(number) for number in numbers]
    return ["" if math.isnan(number) else f"{number:,.{max(decimals, 0)}f}" for number in numbers]


def _round_step(step: float) -> float:
    """Return the nearest of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return min(
        (factor * power for factor in (1, 2, 5, 10)), key=lambda candidate: abs(candidate - step)
    )


def range_text(bounds: Bounds) -> str:
    """Return in words what a quantity can be at all; nothing where it can be anything.

    Example:
        >>> range_text((0.0, 1.0)), range_text((0.0, None)), range_text((None, None))
        ('possible: 0 to 1', 'possible: 0 or more', '')
    """
    low, high = bounds
    if low is not None and high is not None:
        return f"possible: {short_number(low)} to {short_number(high)}"
    if low is not None:
        return f"possible: {short_number(low)} or more"
    return "" if high is None else f"possible: {short_number(high)} or less"


def _finite(bound: float | None) -> float | None:
    return bound if bound is not None and math.isfinite(bound) else None
