"""What a figure takes from a reading besides its numbers: label, axes, token texts."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.figures.errors import FigureError
from attnscope.metrics import Reading

__all__ = [
    "label_of",
    "positions_of",
    "precise_values",
    "require_axes",
    "single_axis",
    "tokens_of",
]

TOKEN_AXES = ("token", "query", "key")


def label_of(reading: Reading) -> str:
    """Return the quantity with its unit, as axes and legends name it."""
    title = reading.title or reading.name
    return f"{title} ({reading.unit})" if reading.unit else title


def precise_values(reading: Reading) -> Float[Tensor, "*axes"]:
    """Return the numbers on the processor, in single precision at least."""
    values = reading.values.detach()
    return values.to("cpu", torch.promote_types(values.dtype, torch.float32))


def require_axes(reading: Reading, axes: tuple[str, ...], figure: str) -> None:
    """Refuse a reading that has other axes than a figure shows.

    Raises:
        FigureError: The axes differ.
    """
    if reading.axes != axes:
        raise FigureError(
            f"{figure} shows readings with the axes {axes}; {reading.name!r} has {reading.axes}. "
            f"Choose from the others with select(), or average them with mean()"
        )


def single_axis(reading: Reading, figure: str) -> str:
    """Return the one axis of a token-level reading.

    Raises:
        FigureError: There are more axes, or the one is not of tokens.
    """
    if len(reading.axes) != 1 or reading.axes[0] not in TOKEN_AXES:
        raise FigureError(
            f"{figure} shows one number per token, along one of the axes {TOKEN_AXES}; "
            f"{reading.name!r} has {reading.axes}. Choose with select(), or average with mean()"
        )
    return reading.axes[0]


def tokens_of(reading: Reading, axis: str) -> tuple[str, ...]:
    """Return the text of each token along an axis.

    Raises:
        FigureError: The reading does not hold them.
    """
    if axis not in reading.coordinates:
        raise FigureError(
            f"{reading.name!r} has no token texts along {axis}; "
            f"it has coordinates of {sorted(reading.coordinates)}"
        )
    return tuple(map(str, reading.coordinates[axis]))


def positions_of(reading: Reading, axis: str) -> tuple[int, ...]:
    """Return where each entry stands in the whole axis."""
    return tuple(reading.positions.get(axis, range(reading.values.shape[reading.axes.index(axis)])))
