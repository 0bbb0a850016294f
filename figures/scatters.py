"""`head_scatter`: two numbers per head against each other, heads named and groups marked."""

from dataclasses import dataclass
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
from attnscope.figures.palette import GLOBAL, LOCAL, MUTED, SEQUENTIAL, ColorStops, Mark
from attnscope.figures.placement import Place, place_labels
from attnscope.figures.quantity import label_of, precise_values, require_axes
from attnscope.figures.scale import Scale
from attnscope.figures.token_text import escaped
from attnscope.metrics import HeadGroups, Reading

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.collections
    import matplotlib.figure
    import plotly.graph_objects

__all__ = ["HeadScatter", "head_scatter"]

_NAMES_THAT_FIT = 160
_OTHER = Mark(
    name="other head", color=MUTED, plotly="circle", matplotlib="o", glyph="\N{BLACK CIRCLE}"
)
_AREA = (820.0, 380.0)
_LAYERS = ColorStops(name="layers", stops=SEQUENTIAL.stops[3:])  # its dark end shows on black too


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScatter:
    """Heads as points.

    Attributes:
        x: The first number of each head.
        y: The second number of each head.
        names: Each head as `L5H1`.
        layers: The layer of each head.
        roles: The group of each head.
        labels: What the two numbers are.
        ranges: From where to where each axis goes.
        scale: The colors of the layers.
        title: What is shown.
        caption: What was left out.
    """

    x: Float[Tensor, " point"]
    y: Float[Tensor, " point"]
    names: tuple[str, ...]
    layers: tuple[int, ...]
    roles: tuple[Mark, ...]
    labels: tuple[str, str]
    ranges: tuple[tuple[float, float], tuple[float, float]]
    scale: Scale
    title: str
    caption: str

    def placed_names(
        self, area: tuple[float, float], letter: tuple[float, float]
    ) -> list[Place | None]:
        """Return where each head's name stands without covering another, None without room.

        Args:
            area: Width and height of the axes.
            letter: Width and height of a letter, in the same unit.
        """
        if len(self.names) > _NAMES_THAT_FIT:
            return [None] * len(self.names)
        spots = zip(*(self._spread(axis, area[axis]) for axis in (0, 1)), strict=True)
        return place_labels(
            list(spots), [(len(name) * letter[0], letter[1]) for name in self.names], area
        )

    def _spread(self, axis: int, length: float) -> list[float]:
        low, high = self.ranges[axis]
        return [(value - low) / (high - low) * length for value in (self.x, self.y)[axis].tolist()]

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the scatter for a screen: a point tells its head, its group and both numbers."""
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=540)
        places = self.placed_names(_AREA, (6.6, 12.0))
        for role in self._present_roles():
            self._add_points(figure, role, places)
            self._add_to_legend(figure, role)
        figure.update_layout(
            coloraxis=plotly_color_legend(self.scale),
            xaxis={"title": {"text": escaped(self.labels[0])}, "range": self.ranges[0]},
            yaxis={"title": {"text": escaped(self.labels[1])}, "range": self.ranges[1]},
            legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
            showlegend=len(self._present_roles()) > 1,
        )
        return figure

    def _add_points(self, figure: Any, role: Mark, places: list[Place | None]) -> None:
        chosen = self._members(role)
        sides = {i: place.name for i in chosen if (place := places[i]) is not None}
        figure.add_scatter(
            x=self.x[chosen].numpy(),
            y=self.y[chosen].numpy(),
            mode="markers+text",
            legendgroup=role.name,
            showlegend=False,
            text=[self.names[i] if i in sides else "" for i in chosen],
            textposition=[sides.get(i, "top center") for i in chosen],
            textfont={"size": 10},
            customdata=[self.names[i] for i in chosen],
            hovertemplate=(
                f"%{{customdata}}, {role.name}<br>{escaped(self.labels[0])}: %{{x:.4~g}}"
                f"<br>{escaped(self.labels[1])}: %{{y:.4~g}}<extra></extra>"
            ),
            marker={
                "symbol": role.plotly,
                "size": 11,
                "color": [self.layers[i] for i in chosen],
                "coloraxis": "coloraxis",
                "line": {"color": role.color, "width": _ring(role)},
            },
        )

    def _add_to_legend(self, figure: Any, role: Mark) -> None:
        """Add an empty series whose hollow marker stands for all layers' colors."""
        ring = {"color": role.color, "width": _ring(role)}
        marker = {"symbol": role.plotly, "size": 11, "color": "rgba(0,0,0,0)", "line": ring}
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=role.name, legendgroup=role.name, marker=marker
        )

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the scatter for paper, with the same points, colors and names."""
        figure = matplotlib_canvas(7.2, 4.6)
        axes = figure.add_subplot()
        style_axes(axes, self.title, self.caption)
        axes.set(xlim=self.ranges[0], ylim=self.ranges[1])
        axes.set_xlabel(self.labels[0], fontsize=9)
        axes.set_ylabel(self.labels[1], fontsize=9)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        points = [self._draw_points(axes, role) for role in self._present_roles()]
        for i, place in enumerate(self.placed_names((400.0, 240.0), (4.6, 8.0))):
            if place is not None:
                annotate(axes, self.names[i], (float(self.x[i]), float(self.y[i])), place)
        if points:
            color_legend(figure, axes, points[0], self.scale)
        if len(points) > 1:
            box = figure.legend(fontsize=7.5, frameon=False, ncols=3, loc="outside lower center")
            for handle in filter(None, box.legend_handles):  # hollow: the color tells the layer
                handle.set(array=None, facecolor="none")
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)

    def _draw_points(
        self, axes: "matplotlib.axes.Axes", role: Mark
    ) -> "matplotlib.collections.PathCollection":
        chosen = self._members(role)
        return axes.scatter(
            self.x[chosen].numpy(),
            self.y[chosen].numpy(),
            c=[self.layers[i] for i in chosen],
            cmap=self.scale.colors.matplotlib(),
            vmin=self.scale.low,
            vmax=self.scale.high,
            marker=role.matplotlib,
            s=34,
            edgecolors=role.color,
            linewidths=0.65 * _ring(role),
            label=role.name,
        )

    def _members(self, role: Mark) -> list[int]:
        return [i for i, own in enumerate(self.roles) if own == role]

    def _present_roles(self) -> list[Mark]:
        return [role for role in (_OTHER, LOCAL, GLOBAL) if role in self.roles]


def head_scatter(
    x: Reading, y: Reading, *, groups: HeadGroups | None = None, title: str = ""
) -> HeadScatter:
    """Return two head-level readings against each other, one point per head.

    Args:
        x: One number per layer and head.
        y: Another number of the same heads.
        groups: Which heads are local and which global.
        title: What to write above; by default both readings' titles.

    Raises:
        FigureError: A reading has other axes, or the two are not of the same heads.
    """
    for reading in (x, y):
        require_axes(reading, ("layer", "head"), "head_scatter")
    if x.values.shape != y.values.shape:
        raise FigureError(
            "head_scatter needs two readings of the same layers and heads; "
            f"{x.name!r} has {tuple(x.values.shape)}, {y.name!r} {tuple(y.values.shape)}"
        )
    first, second = precise_values(x), precise_values(y)
    known = (first.isfinite() & second.isfinite()).nonzero().tolist()
    numbers = (
        x.coordinates.get("layer", range(first.shape[0])),
        x.coordinates.get("head", range(first.shape[1])),
    )
    layers = tuple(int(numbers[0][layer]) for layer, _ in known)
    left_out = first.numel() - len(known)
    mask = (first.isfinite() & second.isfinite()).flatten()
    return HeadScatter(
        x=first.flatten()[mask],
        y=second.flatten()[mask],
        names=tuple(f"L{numbers[0][layer]}H{numbers[1][head]}" for layer, head in known),
        layers=layers,
        roles=tuple(_role(groups, layer, head) for layer, head in known),
        labels=(label_of(x), label_of(y)),
        ranges=(_range(first.flatten()[mask]), _range(second.flatten()[mask])),
        scale=_layer_scale(layers),
        title=title or f"{y.title or y.name} against {(x.title or x.name).lower()}",
        caption=f"{left_out} heads without both numbers are left out" if left_out else "",
    )


def _role(groups: HeadGroups | None, layer: int, head: int) -> Mark:
    if groups is not None and bool(groups.local_heads[layer, head]):
        return LOCAL
    if groups is not None and bool(groups.global_heads[layer, head]):
        return GLOBAL
    return _OTHER


def _ring(role: Mark) -> float:
    return 1.0 if role == _OTHER else 2.2


def _range(values: Float[Tensor, " point"]) -> tuple[float, float]:
    least, most = torch.aminmax(values) if values.numel() else (torch.zeros(()), torch.ones(()))
    margin = 0.07 * float(most - least) or 0.5
    return float(least) - margin, float(most) + margin


def _layer_scale(layers: tuple[int, ...]) -> Scale:
    low, high = min(layers, default=0), max(layers, default=1)
    return Scale(
        low=float(low), high=float(max(high, low + 1)), colors=_LAYERS, label="layer", whole=True
    )
