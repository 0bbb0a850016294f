"""`attention_map`: who looks at whom, for a part of a head's map of any size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.figures.canvas import (
    color_legend,
    matplotlib_canvas,
    plotly_canvas,
    plotly_color_legend,
    style_axes,
)
from attnscope.figures.display import screened_bundle
from attnscope.figures.errors import FigureError
from attnscope.figures.head_map import quantity
from attnscope.figures.reduction import Zoom, reduced_tile
from attnscope.figures.scale import Scale, linear_scale, logarithmic_scale
from attnscope.figures.token_text import escaped, position_labels

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import plotly.graph_objects

__all__ = ["AttentionMap", "attention_map"]

_LABELS_THAT_FIT = 56


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMap:
    """The cells of a map and all that is written around them.

    Attributes:
        values: One number per cell; NaN where nothing can be.
        queries: The positions along the rows.
        keys: The positions along the columns.
        steps: How many queries and how many keys share a cell.
        query_labels: One text per row of cells.
        key_labels: One text per column of cells.
        scale: The colors.
        title: What is shown.
        caption: How entries became cells.
        axes: What a query and what a key is: token, patch, ...
    """

    values: Float[Tensor, "query_cell key_cell"]
    queries: range
    keys: range
    steps: tuple[int, int]
    query_labels: tuple[str, ...]
    key_labels: tuple[str, ...]
    scale: Scale
    title: str
    caption: str
    axes: tuple[str, str] = ("token", "token")

    def with_log_colors(self) -> "AttentionMap":
        """Return the same map in logarithmic colors, for what lies between a sink and nothing."""
        return replace(self, scale=logarithmic_scale(self.scale, self.values))

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the map for a screen: every cell tells its query, its key and its value."""
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=680)
        shown = "customdata" if self.scale.logarithmic else "z"
        figure.add_heatmap(
            z=self.scale.drawn(self.values).numpy(),
            customdata=self.values.numpy() if self.scale.logarithmic else None,
            x=[escaped(label) for label in self.key_labels],
            y=[escaped(label) for label in self.query_labels],
            hovertemplate=f"query %{{y}}<br>key %{{x}}<br>%{{{shown}:.4~g}}<extra></extra>",
            coloraxis="coloraxis",
        )
        square = self.steps[0] == self.steps[1] and len(self.queries) == len(self.keys)
        figure.update_layout(
            coloraxis=plotly_color_legend(self.scale),
            plot_bgcolor="rgba(128,128,128,0.14)",
            xaxis=_plotly_axis(f"key ({self.axes[1]})", self.key_labels, -90),
            yaxis={
                **_plotly_axis(f"query ({self.axes[0]})", self.query_labels, 0),
                "autorange": "reversed",
                **({"scaleanchor": "x", "constrain": "domain"} if square else {}),
            },
        )
        figure.update_xaxes(constrain="domain")
        return figure

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the map for paper, with the same cells, colors and texts."""
        rows, columns = len(self.queries), len(self.keys)
        # Wide enough that a square map, which its height limits, leaves room for labels and legend.
        figure = matplotlib_canvas(8.0, min(9.0, max(3.2, 5.6 * rows / columns + 1.0)))
        axes = figure.add_subplot()
        cells = self.values.shape
        left, top = self.keys.start - 0.5, self.queries.start - 0.5
        image = axes.imshow(
            self.scale.drawn(self.values).numpy(),
            cmap=self.scale.colors.matplotlib(),
            vmin=self.scale.low,
            vmax=self.scale.high,
            extent=(left, left + cells[1] * self.steps[1], top + cells[0] * self.steps[0], top),
            aspect="equal" if rows == columns else "auto",
            interpolation="nearest",
        )
        axes.set_xlim(left, self.keys.stop - 0.5)
        axes.set_ylim(self.queries.stop - 0.5, top)
        axes.set_facecolor("#e6e6e6")
        style_axes(axes, self.title, self.caption)
        axes.set_xlabel(f"key ({self.axes[1]})", fontsize=9)
        axes.set_ylabel(f"query ({self.axes[0]})", fontsize=9)
        self._write_tokens(axes)
        color_legend(figure, axes, image, self.scale)
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)

    def _write_tokens(self, axes: "matplotlib.axes.Axes") -> None:
        if self.steps[1] == 1 and len(self.keys) <= _LABELS_THAT_FIT:
            axes.set_xticks(self.keys, self.key_labels, rotation=90, fontsize=7, parse_math=False)
        if self.steps[0] == 1 and len(self.queries) <= _LABELS_THAT_FIT:
            axes.set_yticks(self.queries, self.query_labels, fontsize=7, parse_math=False)


def attention_map(
    attention: AttentionOperator,
    head: int | None = None,
    *,
    zoom: Zoom | None = None,
    query_tokens: Sequence[str] | None = None,
    key_tokens: Sequence[str] | None = None,
    title: str = "",
) -> AttentionMap:
    """Return a part of one head's map, or of the mean over heads, in few enough cells to be seen.

    Up to `zoom.cells` positions along an axis each keep a cell of their own; of more, several share
    one, and the caption says how many and how. Only strips of the map are ever built.

    Args:
        attention: The heads; no batch axis, or one of length 1.
        head: Which head; None for the plain mean over heads.
        zoom: Which part and how finely; by default all of it.
        query_tokens: A text for each query; by default that of the key at its position.
        key_tokens: A text for each key.
        title: What to write above; by default which head it is.

    Raises:
        FigureError: There is a batch, no such head, or a number of tokens that does not fit.
    """
    zoom = zoom or Zoom()
    chosen = _one_head(attention, head)
    key_texts = _fitting(key_tokens, attention.keys, "key")
    if query_tokens is None and key_tokens is not None and attention.offset is not None:
        query_tokens = key_tokens[attention.offset : attention.offset + attention.queries]
    queries, keys = zoom.positions(chosen)
    steps = zoom.step(queries), zoom.step(keys)
    values = reduced_tile(chosen, zoom)
    label, bounds = quantity(attention)
    heads = f"mean of {attention.heads} heads" if head is None and attention.heads > 1 else ""
    return AttentionMap(
        values=values,
        queries=queries,
        keys=keys,
        steps=steps,
        query_labels=position_labels(
            queries, steps[0], _fitting(query_tokens, attention.queries, "query")
        ),
        key_labels=position_labels(keys, steps[1], key_texts),
        scale=linear_scale(values, label=label, bounds=bounds),
        title=title or (f"Attention of head {head}" if head is not None else "Attention"),
        caption=", ".join(part for part in (heads, _how_reduced(zoom, steps, attention)) if part),
        axes=(attention.query_axis, attention.key_axis),
    )


def _one_head(attention: AttentionOperator, head: int | None) -> AttentionOperator:
    if attention.shape[:-3].numel() != 1:
        raise FigureError(
            f"a map shows one sequence; {attention!r} has the batch axes "
            f"{tuple(attention.shape[:-3])}"
        )
    if head is None:
        return attention
    if not -attention.heads <= head < attention.heads:
        raise FigureError(f"no head {head}; this layer has heads 0 to {attention.heads - 1}")
    return attention.select_heads([head])


def _fitting(tokens: Sequence[str] | None, length: int, axis: str) -> tuple[str, ...] | None:
    if tokens is not None and len(tokens) != length:
        raise FigureError(f"{len(tokens)} {axis} tokens for a map with {length} {axis} positions")
    return None if tokens is None else tuple(tokens)


def _how_reduced(zoom: Zoom, steps: tuple[int, int], attention: AttentionOperator) -> str:
    kind = attention.query_axis if attention.query_axis == attention.key_axis else "position"
    if steps == (1, 1):
        return f"one cell per {kind}"
    signed = " in size" if attention.signed and zoom.reduction.name == "max" else ""
    return f"{zoom.reduction.name}{signed} over {steps[0]} × {steps[1]} {kind}s per cell"  # noqa: RUF001


def _plotly_axis(title: str, labels: tuple[str, ...], angle: int) -> dict[str, Any]:
    return {
        "title": {"text": title},
        "type": "category",
        "showgrid": False,
        "tickfont": {"size": 10},
        **({"dtick": 1, "tickangle": angle} if len(labels) <= _LABELS_THAT_FIT else {"nticks": 16}),
    }
