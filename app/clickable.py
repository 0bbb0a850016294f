"""`clickable_rhythm` and `clickable_grid`: figures whose tokens and heads can be clicked.

Plotly selects markers only. So there is a marker that nobody sees at every token and in every cell,
with its name as custom data.
"""

from typing import TYPE_CHECKING, Any

from attnscope.figures import HeadGrid, HeadName, HeadScatter, RhythmPlot

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = ["clickable_grid", "clickable_rhythm", "clickable_scatter"]

_CHOSEN = "#c2185b"


def clickable_rhythm(plot: RhythmPlot, chosen: int | None) -> "plotly.graph_objects.Figure":
    """Return the curves of a rhythm; a click gives a token's position.

    Args:
        plot: The curves.
        chosen: The position of the token that is marked by a line; None for none.
    """
    figure: Any = plot.plotly()
    labels = list(figure.data[0].x)
    axes = ["y", *(f"y{row}" for row in range(2, len(plot.panels) + 1))]
    position_of = dict(zip(labels, map(str, plot.positions), strict=True))
    for series in figure.data:
        series.customdata = [position_of[label] for label in series.x]
    _keep_visible(figure)
    shown = len(figure.data)
    for panel, axis in zip(plot.panels, axes, strict=True):
        figure.add_scatter(
            x=labels,
            y=panel.values.nan_to_num(0.0).numpy(),
            yaxis=axis,
            customdata=list(map(str, plot.positions)),
            **_unseen(10),
        )
    # Where several series share a place, a click takes the first, if it has markers at all.
    figure.data = (*figure.data[shown:], *figure.data[:shown])
    if chosen in plot.positions:
        place = plot.positions.index(chosen)
        look = {"color": _CHOSEN, "width": 1.5, "dash": "dot"}
        figure.add_shape(type="line", x0=place, x1=place, yref="paper", y0=0, y1=1, line=look)
    return figure


def clickable_grid(grid: HeadGrid, chosen: HeadName) -> "plotly.graph_objects.Figure":
    """Return a grid of heads; a click gives a head's name, as in `L5H1`.

    Args:
        grid: The grid.
        chosen: The head that is framed, if it is among them.
    """
    figure = grid.plotly()
    cells = [(layer, head) for layer in grid.layers for head in grid.heads]
    figure.add_scatter(
        x=[str(head) for _, head in cells],
        y=[str(layer) for layer, _ in cells],
        customdata=[str(HeadName(layer, head)) for layer, head in cells],
        **_unseen(22),
    )
    # Without markers beyond the edge, which plotly would make room for.
    figure.update_xaxes(range=[-0.5, len(grid.heads) - 0.5])
    figure.update_yaxes(range=[len(grid.layers) - 0.5, -0.5], autorange=None)
    if chosen.layer in grid.layers and chosen.head in grid.heads:
        row, column = grid.layers.index(chosen.layer), grid.heads.index(chosen.head)
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=row - 0.5,
            y1=row + 0.5,
            line={"color": _CHOSEN, "width": 3},
        )
    return figure


def clickable_scatter(scatter: HeadScatter) -> "plotly.graph_objects.Figure":
    """Return a scatter of heads; its points have their heads' names as custom data already."""
    figure = scatter.plotly()
    _keep_visible(figure)
    return figure


def _unseen(size: int) -> dict[str, Any]:
    """Return the look of markers that a pointer finds and nobody sees."""
    return {
        "mode": "markers",
        "marker": {"size": size, "color": _CHOSEN, "opacity": 0, "symbol": "square"},
        "selected": {"marker": {"opacity": 0}},
        "unselected": {"marker": {"opacity": 0}},
        "hoverinfo": "none",
        "showlegend": False,
    }


def _keep_visible(figure: Any) -> None:
    """Keep every other marker as it is while one is selected."""
    for series in figure.data:
        if series.type == "scatter":
            series.update(selected_marker_opacity=1, unselected_marker_opacity=1)
