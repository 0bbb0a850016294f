"""`gate_map`: how much of itself each position keeps, on the grid where the positions lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import GateAttention
from attnscope.figures.canvas import (
    color_legend,
    matplotlib_canvas,
    plotly_canvas,
    plotly_color_legend,
    style_axes,
)
from attnscope.figures.display import screened_bundle
from attnscope.figures.errors import FigureError
from attnscope.figures.scale import Scale, linear_scale
from attnscope.figures.token_text import escaped

if TYPE_CHECKING:
    import matplotlib.figure
    import plotly.graph_objects

__all__ = ["GateMap", "gate_map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateMap:
    """A gate's numbers where its positions lie, and all that is written around them.

    Attributes:
        values: One number per position.
        axes: What lies along the rows and along the columns.
        scale: The colors: diverging where a gate may turn signs.
        title: What is shown.
        caption: Which numbers these are.
    """

    values: Float[Tensor, "row column"]
    axes: tuple[str, str]
    scale: Scale
    title: str
    caption: str

    @property
    def is_strip(self) -> bool:
        """Return whether the positions lie in one row."""
        return len(self.values) == 1

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the gate for a screen: every cell tells its place and its value."""
        height = 260 if self.is_strip else 620
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=height)
        place = f"{self.axes[1]} %{{x}}" if self.is_strip else "row %{y}, column %{x}"
        figure.add_heatmap(
            z=self.values.numpy(),
            hovertemplate=f"{place}<br>%{{z:.4~g}}<extra></extra>",
            coloraxis="coloraxis",
        )
        figure.update_layout(
            coloraxis=plotly_color_legend(self.scale),
            xaxis={"title": {"text": self.axes[1]}, "showgrid": False, "constrain": "domain"},
            yaxis={
                "title": {"text": self.axes[0]},
                "showgrid": False,
                "autorange": "reversed",
                **self._plotly_rows(),
            },
        )
        return figure

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the gate for paper, with the same cells, colors and texts."""
        rows, columns = self.values.shape
        # Wide enough that the legend and the title have room beside a square grid.
        height = 1.8 if self.is_strip else min(8.0, max(2.6, 5.0 * rows / columns + 1.0))
        figure = matplotlib_canvas(7.2, height)
        axes = figure.add_subplot()
        image = axes.imshow(
            self.values.numpy(),
            cmap=self.scale.colors.matplotlib(),
            vmin=self.scale.low,
            vmax=self.scale.high,
            aspect="auto" if self.is_strip else "equal",
            interpolation="nearest",
        )
        style_axes(axes, self.title, self.caption)
        axes.set_xlabel(self.axes[1], fontsize=9)
        axes.set_ylabel(self.axes[0], fontsize=9)
        axes.locator_params(integer=True)
        if self.is_strip:
            axes.set_yticks([])
        color_legend(figure, axes, image, self.scale)
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)

    def _plotly_rows(self) -> dict[str, Any]:
        if self.is_strip:
            return {"showticklabels": False, "ticks": ""}
        return {"scaleanchor": "x", "constrain": "domain"}


def gate_map(
    gate: GateAttention,
    head: int | None = None,
    *,
    grid: Sequence[int] | None = None,
    title: str = "",
) -> GateMap:
    """Return one head's gate, or the mean over heads, where its positions lie.

    Args:
        gate: The gates; no batch axis, or one of length 1.
        head: Which head; None for the plain mean over heads (of a gate of both signs, heads may
            cancel in it: `gate_map(GateAttention(gate.gate.abs()))` shows the mean size).
        grid: Rows and columns of the last positions, in raster order; what stands before them
            (class tokens) is not drawn. None for a strip of all positions.
        title: What to write above; by default which head it is.

    Raises:
        FigureError: There is a batch, no such head, or a grid that the positions do not fill.

    Example:
        >>> shown = gate_map(GateAttention(torch.tensor([[9.0, 0.0, 1.0, 2.0, 3.0]])), grid=(2, 2))
        >>> shown.values.tolist(), shown.caption
        ([[0.0, 1.0], [2.0, 3.0]], 'not drawn: 1 before the grid')
    """
    if gate.shape[:-3].numel() != 1:
        raise FigureError(
            f"a map shows one item; {gate!r} has the batch axes {tuple(gate.shape[:-3])}"
        )
    numbers = gate.gate.detach().reshape(gate.heads, gate.queries).to("cpu", torch.float32)
    if head is None:
        chosen = numbers.mean(0)
    elif -gate.heads <= head < gate.heads:
        chosen = numbers[head]
    else:
        raise FigureError(f"no head {head}; this gate has heads 0 to {gate.heads - 1}")
    values = _laid_out(chosen, grid)
    heads = f"mean of {gate.heads} heads" if head is None and gate.heads > 1 else ""
    return GateMap(
        values=values,
        axes=("", gate.query_axis) if grid is None else ("row", "column"),
        scale=linear_scale(
            values,
            label="gate",
            bounds=(None if gate.signed else 0.0, None),
        ),
        title=title or (f"Gate of head {head}" if head is not None else "Gate"),
        caption=", ".join(filter(None, (heads, _left_out(len(chosen) - values.numel())))),
    )


def _laid_out(numbers: Float[Tensor, " position"], grid: Sequence[int] | None) -> Tensor:
    if grid is None:
        return numbers.unsqueeze(0)
    if len(grid) != 2 or min(grid) < 1 or grid[0] * grid[1] > len(numbers):
        raise FigureError(
            f"{len(numbers)} positions do not fill a grid of {tuple(grid)}; "
            "it needs rows and columns of the last positions"
        )
    return numbers[-grid[0] * grid[1] :].reshape(*grid)


def _left_out(count: int) -> str:
    return f"not drawn: {count} before the grid" if count else ""
