"""`rhythm_plot`: WAAD, FAI and entropy over a response, with its preplan and anchor tokens."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from attnscope.figures.canvas import matplotlib_canvas, plotly_canvas, style_axes
from attnscope.figures.display import screened_bundle
from attnscope.figures.errors import FigureError
from attnscope.figures.palette import ANCHOR, NEUTRAL, PREPLAN, Mark
from attnscope.figures.panels import Panel
from attnscope.figures.quantity import (
    positions_of,
    precise_values,
    single_axis,
    tokens_of,
)
from attnscope.figures.token_text import escaped, shortened
from attnscope.metrics import Reading

if TYPE_CHECKING:
    import matplotlib.figure
    import plotly.graph_objects

__all__ = ["RhythmPlot", "rhythm_plot"]

_TOKENS_THAT_FIT = 110
_GAP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RhythmPlot:
    """Curves over the same tokens, one below the other.

    Attributes:
        panels: The curves, from the top.
        positions: Where the tokens stand in the whole text.
        tokens: The tokens as they are: untrusted text.
        title: What is shown.
        caption: Where the numbers come from.
    """

    panels: tuple[Panel, ...]
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    title: str
    caption: str

    @property
    def tokens_fit(self) -> bool:
        """Return whether every token can be written along the axis."""
        return len(self.tokens) <= _TOKENS_THAT_FIT

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the curves for a screen: each place tells its token and all its numbers."""
        height = 170 + 165 * len(self.panels)
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=height)
        labels = [
            escaped(f"{position} {shortened(token)}")
            for position, token in zip(self.positions, self.tokens, strict=True)
        ]
        axes = ["y", *(f"y{row}" for row in range(2, len(self.panels) + 1))]
        for panel, axis in zip(self.panels, axes, strict=True):
            panel.add_to(figure, axis, labels)
        rows = {
            axis.replace("y", "yaxis"): row for axis, row in zip(axes, self._rows(), strict=True)
        }
        figure.update_layout(
            {
                **rows,
                "hovermode": "x unified",
                "xaxis": {**self._token_axis(labels), "anchor": axes[-1]},
                "legend": {
                    "orientation": "h",
                    "x": 1,
                    "xanchor": "right",
                    "y": 1.01,
                    "yanchor": "bottom",
                },
            }
        )
        return figure

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the curves for paper; the highest marks are named where not every token fits."""
        width = min(12.5, max(7.2, 0.115 * len(self.tokens))) if self.tokens_fit else 10.0
        figure = matplotlib_canvas(width, 1.0 + 1.45 * len(self.panels))
        rows = figure.subplots(len(self.panels), 1, sharex=True, squeeze=False)[:, 0]
        style_axes(rows[0], self.title, self.caption)
        texts = tuple(shortened(token) for token in self.tokens)
        for axes, panel in zip(rows, self.panels, strict=True):
            panel.draw_on(axes, self.positions)
        rows[-1].set_xlabel("token", fontsize=9)
        rows[-1].set_xlim(min(self.positions) - 1, max(self.positions) + 1)
        if self.tokens_fit:
            small = {"rotation": 90, "fontsize": 6.5, "parse_math": False}
            rows[-1].set_xticks(self.positions, texts, **small)
        else:
            for axes, panel in zip(rows, self.panels, strict=True):
                panel.name_highest(axes, self.positions, texts, (72 * (width - 0.8), 80.0))
        handles = [handle for axes in rows for handle in axes.get_legend_handles_labels()[0]]
        if handles:
            above = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
            rows[0].legend(handles=handles, fontsize=7.5, frameon=False, ncols=2, **above)
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)

    def _rows(self) -> list[dict[str, Any]]:
        """Return plotly's axis of each panel, from the top, with a gap between them."""
        share = (1 + _GAP) / len(self.panels)
        return [
            {
                "domain": [max(0.0, 1 - (row + 1) * share + _GAP), 1 - row * share],
                "title": {"text": escaped(panel.label)},
                "zeroline": False,
            }
            for row, panel in enumerate(self.panels)
        ]

    def _token_axis(self, labels: list[str]) -> dict[str, Any]:
        return {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": labels,
            "tickangle": -90,
            "tickfont": {"size": 10},
            "showgrid": False,
            "range": [-1, len(labels)],
            "title": {"text": "token"},
            **({"dtick": 1} if self.tokens_fit else {"nticks": 60}),
        }


def rhythm_plot(
    waad: Reading,
    fai: Reading,
    *,
    marks: Mapping[Mark, Iterable[int]] | None = None,
    entropy: Float[Tensor, " token"] | None = None,
    title: str = "",
) -> RhythmPlot:
    """Return WAAD with the preplan tokens marked, above FAI with the anchor tokens marked.

    Args:
        waad: WAAD of each token of the response.
        fai: FAI of the same tokens.
        marks: The positions of `PREPLAN` and `ANCHOR` tokens, counted in the whole text.
        entropy: Entropy in nats of the distribution that each token was drawn from.
        title: What to write above.

    Raises:
        FigureError: A reading is not of tokens, there are none, or the lengths differ.
    """
    axis = single_axis(waad, "rhythm_plot")
    tokens, positions = tokens_of(waad, axis), positions_of(waad, axis)
    single_axis(fai, "rhythm_plot")
    lengths = {"waad": len(tokens), "fai": len(fai.values)}
    lengths |= {} if entropy is None else {"entropy": len(entropy)}
    if len(set(lengths.values())) > 1 or not tokens:
        raise FigureError(
            f"rhythm_plot needs one number per token of the same tokens; the lengths are {lengths}"
        )
    chosen = {mark: _places(positions, wanted) for mark, wanted in (marks or {}).items()}
    panels = [_panel(waad, "WAAD", PREPLAN, chosen), _panel(fai, "FAI", ANCHOR, chosen)]
    if entropy is not None:
        values = entropy.detach().cpu().float()
        panels.append(Panel(values=values, label="entropy (nats)", color=NEUTRAL))
    return RhythmPlot(
        panels=tuple(panels),
        positions=positions,
        tokens=tokens,
        title=title or "Rhythm of the response",
        caption=waad.paper,
    )


def _panel(
    reading: Reading, name: str, mark: Mark, chosen: Mapping[Mark, tuple[int, ...]]
) -> Panel:
    return Panel(
        values=precise_values(reading),
        label=f"{name} ({reading.unit or 'share'})",
        color=mark.color,
        mark=mark,
        chosen=chosen.get(mark, ()),
    )


def _places(positions: tuple[int, ...], wanted: Iterable[int]) -> tuple[int, ...]:
    among = frozenset(wanted)
    return tuple(place for place, position in enumerate(positions) if position in among)
