"""`Panel`: one curve over tokens, with some of them marked, as a row of either library's figure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from attnscope.figures.canvas import annotate
from attnscope.figures.palette import Mark
from attnscope.figures.placement import place_labels
from attnscope.figures.token_text import escaped

if TYPE_CHECKING:
    import matplotlib.axes
    import plotly.graph_objects

__all__ = ["Panel"]

_NAMED_MARKS = 14
_LETTER = (4.4, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One curve over tokens.

    Attributes:
        values: One number per token; NaN where there is none.
        label: The quantity with its unit.
        color: The color of the curve.
        mark: How chosen tokens are marked.
        chosen: The places of the chosen tokens.
    """

    values: Float[Tensor, " token"]
    label: str
    color: str
    mark: Mark | None = None
    chosen: tuple[int, ...] = ()

    def add_to(self, figure: "plotly.graph_objects.Figure", axis: str, labels: list[str]) -> None:
        """Draw the curve and its marks on one axis of a plotly figure, over escaped labels."""
        crowding = self._crowding
        figure.add_scatter(
            x=labels,
            y=self.values.numpy(),
            yaxis=axis,
            mode="lines+markers" if crowding < 2 else "lines",
            line={"color": self.color, "width": 1.6 / crowding},
            marker={"size": 3.5},
            hovertemplate=f"{escaped(self.label)}: %{{y:.4~g}}<extra></extra>",
            showlegend=False,
        )
        if self.mark is not None and self.chosen:
            figure.add_scatter(
                x=[labels[place] for place in self.chosen],
                y=self.values[list(self.chosen)].numpy(),
                yaxis=axis,
                mode="markers",
                name=f"{self.mark.name} token",
                marker={"symbol": self.mark.plotly, "size": 9 / crowding, "color": self.mark.color},
                hovertemplate=f"{self.mark.name}<extra></extra>",
            )

    def draw_on(self, axes: "matplotlib.axes.Axes", positions: tuple[int, ...]) -> None:
        """Draw the curve and its marks on matplotlib axes."""
        crowding = self._crowding
        look = {"color": self.color, "linewidth": 1.1 / crowding, "markersize": 3}
        look |= {"marker": "."} if crowding < 2 else {}
        axes.plot(positions, self.values.numpy(), **look)
        axes.set_ylabel(self.label, fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e8e8e8", linewidth=0.6)
        axes.margins(y=0.18)
        if self.mark is not None and self.chosen:
            axes.scatter(
                [positions[place] for place in self.chosen],
                self.values[list(self.chosen)].numpy(),
                marker=self.mark.matplotlib,
                s=20 / crowding**2,
                color=self.mark.color,
                label=f"{self.mark.name} token",
                zorder=3,
            )

    @property
    def _crowding(self) -> float:
        """Return by how much marks and lines shrink among many tokens."""
        return min(4.0, max(1.0, len(self.values) / 300))

    def name_highest(
        self,
        axes: "matplotlib.axes.Axes",
        positions: tuple[int, ...],
        texts: tuple[str, ...],
        area: tuple[float, float],
    ) -> None:
        """Write the texts of the highest marked tokens beside them, where none covers another.

        Args:
            axes: What the panel was drawn on.
            positions: Where the tokens stand.
            texts: What to write of each token.
            area: Width and height of the axes in points.
        """
        highest = sorted(self.chosen, key=lambda place: -float(self.values[place]))[:_NAMED_MARKS]
        (left, right), (low, high) = map(float, axes.get_xlim()), map(float, axes.get_ylim())
        points = [(float(positions[place]), float(self.values[place])) for place in highest]
        spots = [
            ((x - left) / (right - left) * area[0], (y - low) / (high - low) * area[1])
            for x, y in points
        ]
        names = [texts[place] for place in highest]
        sizes = [(_LETTER[0] * len(name), _LETTER[1]) for name in names]
        for name, point, side in zip(names, points, place_labels(spots, sizes, area), strict=True):
            if side is not None:
                annotate(axes, name, point, side)
