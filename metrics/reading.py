"""`Reading`: what a metric found, with its axes, unit, bounds and source."""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Reading"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Reading:
    """The values of one metric. It knows what it means, so that tables and figures need no more.

    Attributes:
        name: The metric, as the catalog names it.
        values: The numbers; NaN where the metric is undefined.
        axes: What each axis of the values is: layer, head, query, key, token, sentence, ...
        unit: Unit of the values; empty for a pure number.
        bounds: Least and greatest possible value; None where there is none.
        paper: Where the metric comes from.
        title: The metric's name in words.
        coordinates: What stands along an axis: numbers of layers and heads, texts of tokens.
        positions: Place of each entry in the whole axis, where entries were selected.
        stack: The stack of layers that was measured.
        options: The options that the metric was measured with.

    Example:
        >>> reading = Reading(
        ...     name="head_span", title="Head span", unit="tokens", axes=("layer", "head"),
        ...     values=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), coordinates={"layer": (4, 9)},
        ... )
        >>> reading
        Reading(head_span: layer 2, head 2; 1 to 4 tokens)
        >>> reading.select(layer=9).values.tolist()
        [3.0, 4.0]
        >>> reading.mean("head").values.tolist()
        [1.5, 3.5]
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
        """Refuse axes, coordinates and values that do not fit each other."""
        if len(self.axes) != self.values.ndim:
            shape = tuple(self.values.shape)
            raise MetricError(f"{self.name} has the axes {self.axes}, its values the shape {shape}")
        lengths = dict(zip(self.axes, self.values.shape, strict=True))
        for axis, labels in (*self.coordinates.items(), *self.positions.items()):
            if lengths.get(axis) != len(labels):
                raise MetricError(
                    f"{self.name} has {len(labels)} coordinates along {axis!r} of axes {lengths}"
                )

    def select(self, **chosen: int | Iterable[int]) -> "Reading":
        """Return the reading of some layers, heads, queries, ...

        Layers and heads go by their numbers, everything else by its place in the whole axis;
        negative ones count from the end. One number drops the axis, several keep it.

        Raises:
            MetricError: The reading has no such axis, or nothing stands at a number.
        """
        reading = self
        for axis, numbers in chosen.items():
            reading = reading._select(axis, numbers)
        return reading

    def mean(self, *axes: str) -> "Reading":
        """Return the mean over some axes, of the entries that are defined; NaN where none is.

        Raises:
            MetricError: The reading has no such axis.
        """
        dims = [self._dim(axis) for axis in axes]
        kept = tuple(axis for axis in self.axes if axis not in axes)
        return self._with(self.values.nanmean(dims) if dims else self.values, kept, {})

    def to_pandas(self) -> "DataFrame":
        """Return a long table with one row per value.

        There is a column of numbers for each axis, one more of texts (`query_text`) where the axis
        is of tokens, and one for the values, named as the metric.
        """
        import numpy
        import pandas

        columns: dict[str, object] = {}
        grid = numpy.indices(tuple(self.values.shape)).reshape(len(self.axes), self.values.numel())
        for axis, places in zip(self.axes, grid, strict=True):
            columns[axis] = numpy.asarray(self._numbers(axis))[places]
            labels = self.coordinates.get(axis, ())
            if labels and not self._goes_by_label(axis):
                columns[f"{axis}_text"] = numpy.asarray(labels, dtype=object)[places]
        columns[self.name] = precise(self.values.detach()).cpu().reshape(-1).numpy()
        return pandas.DataFrame(columns)

    def __repr__(self) -> str:
        """Return the name, the axes with their lengths, and the range of the values."""
        return f"Reading({self.name}: {self._sizes()}; {self._range()})"

    def _repr_html_(self) -> str:
        """Return what the reading is as a small table, for notebooks."""
        options = ", ".join(f"{name} = {value}" for name, value in self.options.items())
        facts = {
            "axes": self._sizes(),
            "range": self._range(),
            "bounds": " to ".join("..." if b is None else f"{b:g}" for b in self.bounds),
            "options": options,
            "stack": self.stack,
            "source": self.paper,
        }
        rows = "".join(
            f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>"
            for name, text in facts.items()
            if text
        )
        return f"<table><caption>{html.escape(self.title or self.name)}</caption>{rows}</table>"

    # --- inside -----------------------------------------------------------------------------

    def _dim(self, axis: str) -> int:
        if axis not in self.axes:
            raise MetricError(f"{self.name} has no axis {axis!r}; it has {self.axes}")
        return self.axes.index(axis)

    def _goes_by_label(self, axis: str) -> bool:
        labels = self.coordinates.get(axis, ())
        return len(labels) > 0 and not isinstance(labels[0], str)

    def _numbers(self, axis: str) -> tuple[int, ...]:
        """Return by which number each entry of an axis goes."""
        if self._goes_by_label(axis):
            return tuple(self.coordinates[axis])
        return self.positions.get(axis, tuple(range(self.values.shape[self._dim(axis)])))

    def _select(self, axis: str, chosen: int | Iterable[int]) -> "Reading":
        dim, numbers = self._dim(axis), self._numbers(axis)
        wanted = [chosen] if isinstance(chosen, int) else list(chosen)
        known = {number: place for place, number in enumerate(numbers)}
        places = [self._place(axis, number, known) for number in wanted]
        if isinstance(chosen, int):
            kept = tuple(name for name in self.axes if name != axis)
            return self._with(self.values.select(dim, places[0]), kept, {})
        index = torch.tensor(places, dtype=torch.long, device=self.values.device)
        return self._with(self.values.index_select(dim, index), self.axes, {axis: places})

    def _place(self, axis: str, number: int, known: Mapping[int, int]) -> int:
        if number in known:
            return known[number]
        if -len(known) <= number < 0:
            return number % len(known)
        raise MetricError(f"{self.name} has no {axis} {number}; it has {_abridged(tuple(known))}")

    def _with(
        self, values: Tensor, axes: tuple[str, ...], chosen: Mapping[str, list[int]]
    ) -> "Reading":
        """Return the reading of other values, with the coordinates of what was chosen."""
        by_place = [axis for axis in chosen if not self._goes_by_label(axis)]
        positions = {**self.positions, **{axis: self._numbers(axis) for axis in by_place}}

        def kept(labels: Mapping[str, tuple]) -> dict[str, tuple]:
            places = {axis: chosen.get(axis, range(len(labels[axis]))) for axis in labels}
            return {
                axis: tuple(labels[axis][place] for place in places[axis])
                for axis in labels
                if axis in axes
            }

        return replace(
            self,
            values=values,
            axes=axes,
            coordinates=kept(self.coordinates),
            positions=kept(positions),
        )

    def _sizes(self) -> str:
        sizes = zip(self.axes, self.values.shape, strict=True)
        return ", ".join(f"{axis} {size}" for axis, size in sizes) or "one number"

    def _range(self) -> str:
        known = self.values[~self.values.isnan()]
        if not known.numel():
            return "undefined everywhere"
        low, high = float(known.min()), float(known.max())
        return f"{low:.4g} to {high:.4g} {self.unit}".rstrip()


def _abridged(numbers: tuple[int, ...]) -> str:
    if len(numbers) > 12 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return str(list(numbers))
