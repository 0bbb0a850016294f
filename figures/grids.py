"""`head_grid`: one number per head, as a table of layers and heads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from attnscope.figures.canvas import (
    color_legend,
    matplotlib_canvas,
    plotly_canvas,
    plotly_color_legend,
    style_axes,
)
from attnscope.figures.display import screened_bundle
from attnscope.figures.palette import contrasting_ink
from attnscope.figures.quantity import label_of, precise_values, require_axes
from attnscope.figures.scale import Scale, even_numbers, linear_scale
from attnscope.figures.token_text import escaped
from attnscope.metrics import Reading

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import plotly.graph_objects

__all__ = ["HeadGrid", "head_grid"]

_NUMBERS_THAT_FIT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGrid:
    """One number per head.

    Attributes:
        values: The numbers; NaN where there is none.
        layers: The layers' numbers, from the top.
        heads: The heads' numbers, from the left.
        scale: The colors.
        title: What is shown.
        caption: Where the numbers come from.
    """

    values: Float[Tensor, "layer head"]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    scale: Scale
    title: str
    caption: str

    @property
    def written(self) -> bool:
        """Return whether cells are few enough to have their number written in."""
        return max(self.values.shape) <= _NUMBERS_THAT_FIT

    @property
    def texts(self) -> list[list[str]]:
        """Return the number of each cell as it is written, nothing where there is none."""
        texts = even_numbers(self.values.flatten().tolist())
        return [
            texts[start : start + len(self.heads)]
            for start in range(0, len(texts), len(self.heads))
        ]

    @property
    def inks(self) -> list[list[str]]:
        """Return black or white for the text of each cell."""
        fractions = self.scale.fractions(self.values).nan_to_num(1.0).tolist()
        return [[contrasting_ink(self.scale.colors.at(f)) for f in row] for row in fractions]

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the grid for a screen: every cell tells its head and its value."""
        height = 150 + max(170, min(26 * len(self.layers), 760))
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=height)
        figure.add_heatmap(
            z=self.values.numpy(),
            x=list(map(str, self.heads)),
            y=list(map(str, self.layers)),
            coloraxis="coloraxis",
            hovertemplate=(
                "layer %{y}, head %{x}<br>%{z:.4~g} "
                f"{escaped(self.scale.label)}<extra></extra>"
            ),
            xgap=1,
            ygap=1,
        )
        figure.update_layout(
            coloraxis=plotly_color_legend(self.scale),
            xaxis=_plotly_axis("head"),
            yaxis={**_plotly_axis("layer"), "autorange": "reversed"},
            annotations=self._annotations() if self.written else [],
        )
        return figure

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the grid for paper, with the same cells, colors and texts."""
        figure = matplotlib_canvas(7.2, max(2.0, min(1.1 + 0.3 * len(self.layers), 9.0)))
        axes = figure.add_subplot()
        image = axes.pcolormesh(
            self.values.numpy(),
            cmap=self.scale.colors.matplotlib(),
            vmin=self.scale.low,
            vmax=self.scale.high,
            edgecolors="white",
            linewidth=0.8,
        )
        axes.invert_yaxis()
        axes.set_facecolor("#e6e6e6")
        style_axes(axes, self.title, self.caption)
        axes.spines[:].set_visible(False)
        axes.set_xticks(*_ticks(self.heads))
        axes.set_yticks(*_ticks(self.layers))
        axes.tick_params(length=0)
        axes.set_xlabel("head", fontsize=9)
        axes.set_ylabel("layer", fontsize=9)
        if self.written:
            self._write_numbers(axes)
        color_legend(figure, axes, image, self.scale)
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)

    def _write_numbers(self, axes: "matplotlib.axes.Axes") -> None:
        middle = {"ha": "center", "va": "center", "fontsize": 7}
        for note in self._annotations():
            place = note["x"] + 0.5, note["y"] + 0.5
            axes.text(*place, note["text"], color=note["font"]["color"], **middle)

    def _annotations(self) -> list[dict[str, Any]]:
        texts, inks = self.texts, self.inks
        return [
            {
                "x": column,
                "y": row,
                "text": text,
                "showarrow": False,
                "font": {"size": 11, "color": inks[row][column]},
            }
            for row, line in enumerate(texts)
            for column, text in enumerate(line)
            if text
        ]


def head_grid(
    reading: Reading, *, limits: tuple[float, float] | None = None, title: str = ""
) -> HeadGrid:
    """Return a head-level reading as a grid: layers downwards, heads to the right.

    Args:
        reading: One number per layer and head.
        limits: The numbers of the first and the last color; by default from the reading.
        title: What to write above; by default the reading's title.

    Raises:
        FigureError: The reading has other axes.
    """
    require_axes(reading, ("layer", "head"), "head_grid")
    values = precise_values(reading)
    return HeadGrid(
        values=values,
        layers=_numbers(reading, "layer", values.shape[0]),
        heads=_numbers(reading, "head", values.shape[1]),
        scale=linear_scale(values, label=label_of(reading), bounds=reading.bounds, limits=limits),
        title=title or reading.title or reading.name,
        caption=reading.paper,
    )


def _numbers(reading: Reading, axis: str, length: int) -> tuple[int, ...]:
    return tuple(int(number) for number in reading.coordinates.get(axis, range(length)))


def _ticks(numbers: tuple[int, ...]) -> tuple[list[float], list[str]]:
    """Return the middles of cells and their numbers, few enough to be read."""
    step = max(1, -(-len(numbers) // 32))
    places = range(0, len(numbers), step)
    return [place + 0.5 for place in places], [str(numbers[place]) for place in places]


def _plotly_axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title},
        "type": "category",
        "showgrid": False,
        "nticks": 32,
        "ticks": "",
    }
