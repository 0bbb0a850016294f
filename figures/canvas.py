"""Empty figures of both libraries in one look, and what to do when a library is missing."""

from textwrap import fill
from typing import TYPE_CHECKING, Any

from attnscope.figures.errors import MissingLibraryError
from attnscope.figures.palette import MUTED
from attnscope.figures.placement import Place
from attnscope.figures.scale import Scale

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.cm
    import matplotlib.figure
    import plotly.graph_objects

__all__ = [
    "annotate",
    "color_legend",
    "matplotlib_canvas",
    "plotly_canvas",
    "plotly_color_legend",
    "style_axes",
]

_INK = "#1c1e21"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
_GRID = "rgba(128,128,128,0.22)"
_AXIS: dict[str, Any] = {
    "gridcolor": _GRID,
    "zerolinecolor": _GRID,
    "linecolor": MUTED,
    "ticks": "outside",
    "tickcolor": MUTED,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 13}},
}


def plotly_canvas(title: str, caption: str, *, height: int) -> "plotly.graph_objects.Figure":
    """Return an empty plotly figure as wide as its place.

    Args:
        title: The heading, as markup: the caller escapes.
        caption: The line below it, as markup.
        height: Height in pixels.

    Raises:
        MissingLibraryError: plotly is not installed.
    """
    try:
        from plotly.graph_objects import Figure
    except ImportError as error:
        raise MissingLibraryError("plotly") from error
    look = {"layout": {"xaxis": _AXIS, "yaxis": _AXIS}}
    return Figure(
        layout={
            "template": look,
            "title": {
                "text": title,
                "subtitle": {"text": caption},
                "x": 0,
                "xref": "container",
                "xanchor": "left",
            },
            "font": {"family": _FONT, "size": 13, "color": _INK},
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "rgba(128,128,128,0.06)",
            "margin": {"l": 64, "r": 24, "t": 84, "b": 56},
            "height": height,
            "hoverlabel": {"font": {"family": _FONT}},
        }
    )


def matplotlib_canvas(width: float, height: float) -> "matplotlib.figure.Figure":
    """Return an empty matplotlib figure in inches, which belongs to no window and no global state.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingLibraryError("matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def style_axes(axes: "matplotlib.axes.Axes", title: str, caption: str) -> None:
    """Give matplotlib axes a title and a caption as plain text, and no frame where no axis is."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title + ("\n" if caption else ""), loc="left", fontsize=11, parse_math=False)
    axes.annotate(
        caption,
        xy=(0, 1),
        xytext=(0, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        color="#555555",
        parse_math=False,
    )
    axes.tick_params(labelsize=8, color=MUTED)


def plotly_color_legend(scale: Scale) -> dict[str, Any]:
    """Return plotly's color axis for a scale: its colors, its ends, its ticks and its label."""
    numbers, texts = scale.ticks
    return {
        "colorscale": scale.colors.plotly(),
        "cmin": scale.low,
        "cmax": scale.high,
        "colorbar": {
            "title": {"text": scale.label, "side": "right", "font": {"size": 12}},
            "tickfont": {"size": 11},
            "tickvals": numbers,
            "ticktext": texts,
            "thickness": 14,
            "outlinewidth": 0,
            "ticks": "outside",
            "tickcolor": MUTED,
        },
    }


def color_legend(
    figure: "matplotlib.figure.Figure",
    axes: "matplotlib.axes.Axes",
    drawn: "matplotlib.cm.ScalarMappable",
    scale: Scale,
) -> None:
    """Put the color bar of a scale beside matplotlib axes."""
    numbers, texts = scale.ticks
    bar = figure.colorbar(drawn, cax=axes.inset_axes((1.02, 0, 0.022, 1)))
    bar.set_ticks(numbers, labels=texts, fontsize=8)
    room = int(0.8 * figure.get_figheight() * 72 / (0.52 * 8.5))  # in letters of a usual width
    bar.set_label(fill(scale.label, room), fontsize=8.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - the stubs give `outline` the type of its class


def annotate(
    axes: "matplotlib.axes.Axes", text: str, point: tuple[float, float], place: Place
) -> None:
    """Write plain text on one side of a point of matplotlib axes, with a halo against lines."""
    from matplotlib.patheffects import withStroke

    across, up = place.shift
    axes.annotate(
        text,
        point,
        xytext=(6 * across, 6 * up),
        textcoords="offset points",
        ha={1: "left", -1: "right"}.get(across, "center"),
        va={1: "bottom", -1: "top"}.get(up, "center"),
        fontsize=6.5,
        color="#333333",
        parse_math=False,
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )
