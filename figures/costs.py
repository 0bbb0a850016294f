"""`cost_curves`: how a cost grows with the number of tokens, both axes logarithmic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import log
from typing import TYPE_CHECKING, Any

from attnscope.figures.canvas import matplotlib_canvas, plotly_canvas, style_axes
from attnscope.figures.display import screened_bundle
from attnscope.figures.errors import FigureError
from attnscope.figures.palette import ANCHOR, NEUTRAL, PREPLAN, TEAL
from attnscope.figures.token_text import escaped

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import plotly.graph_objects

__all__ = ["CostCurves", "cost_curves"]

_LINES = (
    (PREPLAN.color, "solid", "-", "circle", "o"),
    (ANCHOR.color, "dash", "--", "square", "s"),
    (TEAL, "dot", ":", "diamond", "D"),
    (NEUTRAL, "dashdot", "-.", "cross", "X"),
)
"""Color, dash in both libraries, marker in both: no meaning rests on color alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCurves:
    """Costs at several lengths.

    Attributes:
        curves: Tokens and cost of each point, ascending, by name.
        label: What the cost is, with its unit.
        title: What is shown.

    Example:
        >>> cost_curves({"quadratic": [(10, 1.0), (100, 100.0)]}, label="time (ms)").growth
        {'quadratic': 2.0}
    """

    curves: Mapping[str, tuple[tuple[int, float], ...]]
    label: str
    title: str

    @property
    def growth(self) -> dict[str, float]:
        """Return by which power of the length each cost grows, from its last two points."""
        return {
            name: round(log(points[-1][1] / points[-2][1]) / log(points[-1][0] / points[-2][0]), 2)
            for name, points in self.curves.items()
        }

    @property
    def caption(self) -> str:
        """Return the growth in words."""
        return "; ".join(f"{name}: as T^{power:g} at last" for name, power in self.growth.items())

    def table(self) -> "pandas.DataFrame":
        """Return a row per point."""
        import pandas

        rows = [(name, *point) for name, points in self.curves.items() for point in points]
        return pandas.DataFrame(rows, columns=["what", "tokens", self.label])

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the curves for a screen."""
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=420)
        for (name, points), look in zip(self.curves.items(), cycle(_LINES), strict=False):
            color, dash, _, symbol, _ = look
            figure.add_scatter(
                x=[tokens for tokens, _ in points],
                y=[cost for _, cost in points],
                name=escaped(name),
                mode="lines+markers",
                line={"color": color, "dash": dash},
                marker={"symbol": symbol, "size": 8},
                hovertemplate=f"{escaped(name)}, %{{x:,}} tokens: %{{y:.3~g}}<extra></extra>",
            )
        figure.update_layout(
            xaxis={"type": "log", "title": {"text": "tokens"}, "dtick": "D2"},
            yaxis={"type": "log", "title": {"text": escaped(self.label)}, "dtick": "D2"},
            legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
        )
        return figure

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the curves for paper."""
        figure = matplotlib_canvas(6.4, 3.8)
        axes = figure.add_subplot()
        style_axes(axes, self.title, self.caption)
        for (name, points), look in zip(self.curves.items(), cycle(_LINES), strict=False):
            color, _, dash, _, marker = look
            across, up = zip(*points, strict=True)
            axes.plot(across, up, color=color, linestyle=dash, marker=marker, label=name)
        axes.set(xscale="log", yscale="log")
        axes.set_xlabel("tokens", fontsize=9)
        axes.set_ylabel(self.label, fontsize=9)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.legend(fontsize=8, frameon=False)
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)


def cost_curves(
    curves: Mapping[str, Sequence[tuple[int, float]]], *, label: str, title: str = ""
) -> CostCurves:
    """Return costs at several lengths as curves.

    Args:
        curves: Tokens and cost of at least two points each, by name.
        label: What the cost is, with its unit.
        title: What to write above.

    Raises:
        FigureError: A curve has fewer than two lengths, or a number that is not positive.
    """
    for name, points in curves.items():
        if len({tokens for tokens, _ in points}) < 2 or not all(
            tokens > 0 and cost > 0 for tokens, cost in points
        ):
            raise FigureError(
                f"the curve of {name!r} needs positive costs at two lengths at least; got {points}"
            )
    ordered = {name: tuple(sorted(points)) for name, points in curves.items()}
    return CostCurves(curves=ordered, label=label, title=title or f"{label} by length")
