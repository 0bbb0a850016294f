"""`StoredReading`: what a metric found, kept in a trace beside the attention or instead of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from torch import Tensor

from attnscope.traces.errors import TraceError

__all__ = ["StoredReading"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StoredReading:
    """The values of a metric and what they mean, as plain data.

    Attributes:
        name: The metric, as its catalog names it.
        values: The numbers; NaN where the metric is undefined.
        axes: What each axis of the values is.
        unit: Unit of the values.
        bounds: Least and greatest possible value.
        paper: Where the metric comes from.
        title: The metric's name in words.
        coordinates: What stands along an axis.
        positions: Place of each entry in the whole axis, where entries were selected.
        stack: The stack of layers that was measured.
        options: The options that the metric was measured with.

    Raises:
        TraceError: Axes and values do not fit.
    """

    name: str
    values: Tensor
    axes: tuple[str, ...]
    unit: str = ""
    bounds: tuple[float | None, float | None] = (None, None)
    paper: str = ""
    title: str = ""
    coordinates: Mapping[str, tuple] = field(default_factory=dict)
    positions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stack: str = ""
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse axes and coordinates that do not fit; keep copies that nobody can change."""
        sizes = dict(zip(self.axes, self.values.shape, strict=False))
        lengths = {axis: len(labels) for axis, labels in self.coordinates.items()}
        if len(self.axes) != self.values.ndim or not lengths.items() <= sizes.items():
            raise TraceError(
                f"reading {self.name!r} has the axes {self.axes}, values of shape "
                f"{tuple(self.values.shape)} and {lengths} coordinates"
            )
        for name in ("coordinates", "positions", "options"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @classmethod
    def of(cls, reading: Any) -> "StoredReading":
        """Return what is to be stored of a reading: the fields that it shares with this class."""
        return cls(**{one.name: getattr(reading, one.name) for one in fields(cls)})

    def facts(self) -> Iterator[tuple[str, Any]]:
        """Yield each field by its name."""
        return ((one.name, getattr(self, one.name)) for one in fields(self))

    def __repr__(self) -> str:
        """Return the name and the axes with their lengths."""
        sizes = zip(self.axes, self.values.shape, strict=True)
        named = ", ".join(f"{axis} {size}" for axis, size in sizes) or "one number"
        return f"StoredReading({self.name}: {named})"
