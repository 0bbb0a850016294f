"""`head_flight`: what each head measures while a model learns, and when it became what it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.figures.canvas import (
    annotate,
    color_legend,
    matplotlib_canvas,
    plotly_canvas,
    plotly_color_legend,
    style_axes,
)
from attnscope.figures.display import screened_bundle
from attnscope.figures.errors import FigureError
from attnscope.figures.palette import MUTED, SEQUENTIAL, ColorStops, hex_color
from attnscope.figures.placement import Place, place_labels
from attnscope.figures.scale import Scale
from attnscope.figures.token_text import escaped

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import plotly.graph_objects

__all__ = ["HeadFlight", "head_flight"]

_AREA = (900.0, 360.0)
_LAYERS = ColorStops(name="layers", stops=SEQUENTIAL.stops[3:-2])  # shows on white and on black
_FAINT, _CLEAR = 0.35, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFlight:
    """One number per head over the steps of a training.

    Attributes:
        steps: The recorded steps, ascending.
        values: The number of each head at each step.
        heads: Layer and head number of each row of `values`.
        threshold: From where on a head is said to be such a head; None to ask for no such point.
        label: What the number is.
        scale: The colors of the layers.
        title: What is shown.
        caption: On which texts, and how many heads arrived.

    Example:
        >>> import pandas
        >>> table = pandas.DataFrame({
        ...     "step": [0, 10, 20, 30], "probe": "text", "metric": "sink_mass",
        ...     "layer": 0, "head": 2, "value": [0.6, 0.1, 0.5, 0.9]})
        >>> head_flight(table, "sink_mass", threshold=0.5).arrivals
        (20,)
    """

    steps: tuple[int, ...]
    values: Float[Tensor, "head step"]
    heads: tuple[tuple[int, int], ...]
    threshold: float | None
    label: str
    scale: Scale
    title: str
    caption: str

    @property
    def arrivals(self) -> tuple[int | None, ...]:
        """Return the first step from which each head stays at the threshold or above, or None."""
        if self.threshold is None:
            return (None,) * len(self.heads)
        below = ~(self.values >= self.threshold)  # NaN is below
        places = [int(row.nonzero()[-1]) + 1 if bool(row.any()) else 0 for row in below]
        return tuple(self.steps[at] if at < len(self.steps) else None for at in places)

    def table(self) -> "pandas.DataFrame":
        """Return a row per head: its number at first and at last, and the step of its arrival."""
        import pandas

        return pandas.DataFrame(
            {
                "layer": [layer for layer, _ in self.heads],
                "head": [head for _, head in self.heads],
                "first": self.values[:, 0].tolist(),
                "last": self.values[:, -1].tolist(),
                "arrival": pandas.array(self.arrivals, dtype="Int64"),
            }
        )

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the flight for a screen: a line per head, a point where it arrived."""
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=520)
        colors = self._colors()
        for row, (layer, head) in enumerate(self.heads):
            arrived = self.threshold is None or self.arrivals[row] is not None
            figure.add_scatter(
                x=self.steps,
                y=self.values[row].numpy(),
                mode="lines",
                name=f"L{layer}H{head}",
                line={"color": colors[row], "width": 2 if arrived else 1},
                opacity=_CLEAR if arrived else _FAINT,
                showlegend=False,
                hovertemplate=f"L{layer}H{head}, step %{{x}}: %{{y:.4~g}}<extra></extra>",
            )
        self._add_arrivals(figure)
        figure.update_layout(
            coloraxis=plotly_color_legend(self.scale),
            xaxis={"title": {"text": "training step"}, "range": self._ranges()[0]},
            yaxis={"title": {"text": escaped(self.label)}, "range": self._ranges()[1]},
        )
        if self.threshold is not None:
            figure.add_hline(self.threshold, line={"color": MUTED, "dash": "dot", "width": 1})
        return figure

    def _add_arrivals(self, figure: Any) -> None:
        """Add the points of arrival, or a hidden one that carries the legend of colors."""
        points = self._points()
        sides = self._sides(points, _AREA, (6.6, 12.0))
        figure.add_scatter(
            x=[x for _, x, _ in points] or [None],
            y=[y for _, _, y in points] or [None],
            mode="markers+text",
            text=[
                self._name(row) if side else ""
                for (row, *_), side in zip(points, sides, strict=True)
            ],
            textposition=[side.name if side else "top center" for side in sides],
            textfont={"size": 10},
            customdata=[self._name(row) for row, *_ in points],
            hovertemplate="%{customdata} arrived at step %{x}<extra></extra>",
            showlegend=False,
            marker={
                "size": 9,
                "color": [self.heads[row][0] for row, *_ in points] or [0],
                "coloraxis": "coloraxis",
                "line": {"color": "#ffffff", "width": 1},
            },
        )

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the flight for paper."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        figure = matplotlib_canvas(7.2, 3.9)
        axes = figure.add_subplot()
        style_axes(axes, self.title, self.caption)
        across, up = self._ranges()
        axes.set(xlim=across, ylim=up)
        axes.set_xlabel("training step", fontsize=9)
        axes.set_ylabel(self.label, fontsize=9)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        colors = self._colors()
        for row, values in enumerate(self.values):
            arrived = self.threshold is None or self.arrivals[row] is not None
            axes.plot(
                self.steps,
                values.numpy(),
                color=colors[row],
                linewidth=1.4 if arrived else 0.7,
                alpha=_CLEAR if arrived else _FAINT,
            )
        points = self._points()
        for (row, x, y), side in zip(
            points, self._sides(points, (400.0, 190.0), (4.6, 8.0)), strict=True
        ):
            axes.plot([x], [y], "o", color=colors[row], markersize=5, markeredgecolor="white")
            if side is not None:
                annotate(axes, self._name(row), (x, y), side)
        if self.threshold is not None:
            axes.axhline(self.threshold, color=MUTED, linestyle=":", linewidth=1)
        layers = ScalarMappable(Normalize(self.scale.low, self.scale.high), _LAYERS.matplotlib())
        color_legend(figure, axes, layers, self.scale)
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)

    def _name(self, row: int) -> str:
        layer, head = self.heads[row]
        return f"L{layer}H{head}"

    def _colors(self) -> list[str]:
        spread = self.scale.high - self.scale.low
        return [hex_color(_LAYERS.at((layer - self.scale.low) / spread)) for layer, _ in self.heads]

    def _points(self) -> list[tuple[int, float, float]]:
        """Return row, step and number of each arrival."""
        return [
            (row, float(step), float(self.values[row, self.steps.index(step)]))
            for row, step in enumerate(self.arrivals)
            if step is not None
        ]

    def _sides(
        self,
        points: list[tuple[int, float, float]],
        area: tuple[float, float],
        letter: tuple[float, float],
    ) -> list[Place | None]:
        across, up = self._ranges()
        spots = [
            (
                (x - across[0]) / (across[1] - across[0]) * area[0],
                (y - up[0]) / (up[1] - up[0]) * area[1],
            )
            for _, x, y in points
        ]
        sizes = [(len(self._name(row)) * letter[0], letter[1]) for row, *_ in points]
        return place_labels(spots, sizes, area)

    def _ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        known = self.values[self.values.isfinite()]
        low, high = (float(known.min()), float(known.max())) if known.numel() else (0.0, 1.0)
        if self.threshold is not None:
            low, high = min(low, self.threshold), max(high, self.threshold)
        margin = 0.06 * (high - low) or 0.5
        room = 0.03 * (self.steps[-1] - self.steps[0]) or 0.5
        return (self.steps[0] - room, self.steps[-1] + room), (low - margin, high + margin)


def head_flight(
    table: "pandas.DataFrame",
    metric: str,
    *,
    probe: str | None = None,
    threshold: float | None = None,
    title: str = "",
) -> HeadFlight:
    """Return what the heads measured on recorded steps of a training.

    Args:
        table: What a flight recorder kept: the columns step, probe, metric, layer, head and value.
        metric: The metric to show.
        probe: The text that it was measured on; by default the mean over all texts.
        threshold: From where on a head is said to be such a head: it *arrives* at the first
            recorded step from which it stays there to the end (our definition).
        title: What to write above.

    Raises:
        FigureError: The table has no such metric or text, or lacks heads at some steps.
    """
    chosen = _chosen(table, "metric", metric)
    chosen = chosen if probe is None else _chosen(chosen, "probe", probe)
    means: Any = chosen.groupby(["layer", "head", "step"])["value"].mean()
    means = means.unstack("step")
    if means.isna().to_numpy().any() and not chosen["value"].isna().to_numpy().any():
        raise FigureError(f"{metric!r} was not recorded for all heads at all steps")
    heads = tuple((int(layer), int(head)) for layer, head in means.index)
    flight = HeadFlight(
        steps=tuple(int(step) for step in means.columns),
        values=torch.from_numpy(means.to_numpy(dtype="float64", copy=True)),
        heads=heads,
        threshold=threshold,
        label=metric.replace("_", " "),
        scale=_layer_scale([layer for layer, _ in heads]),
        title=title
        or f"{metric.replace('_', ' ').capitalize()} of each head while the model learns",
        caption="",
    )
    names = chosen["probe"].unique()
    texts = f"on {names[0]!r}" if len(names) == 1 else f"mean of {len(names)} texts"
    arrived = sum(step is not None for step in flight.arrivals)
    told = (
        f"; {arrived} of {len(heads)} heads stay at {threshold:g} or above"
        if threshold is not None
        else ""
    )
    return replace(flight, caption=texts + told)


def _chosen(table: "pandas.DataFrame", column: str, wanted: str) -> "pandas.DataFrame":
    chosen = table.loc[table[column] == wanted, :]
    if chosen.empty:
        names = ", ".join(map(repr, sorted(set(table[column]))))
        raise FigureError(f"the recording has no {column} {wanted!r}; it has {names}")
    return chosen


def _layer_scale(layers: Sequence[int]) -> Scale:
    low, high = min(layers), max(layers)
    return Scale(
        low=float(low), high=float(max(high, low + 1)), colors=_LAYERS, label="layer", whole=True
    )
