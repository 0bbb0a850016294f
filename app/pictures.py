"""`draw`: a figure in a page, in the page's colors, with its words, its numbers and its files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas
import streamlit as st

from attnscope.app.downloads import offer

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = ["Told", "draw", "draw_text", "selected_point"]

_CLEAR = "rgba(0,0,0,0)"
_BUTTONS = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a picture says to those who cannot see it, and what its files are called.

    Attributes:
        name: What it is called in the files; unlike on one page.
        words: What it shows, in a sentence or two.
        table: Returns its numbers.
    """

    name: str
    words: str
    table: Callable[[], pandas.DataFrame] | None = None


def draw(
    picture: Any,
    told: Told,
    *,
    figure: "plotly.graph_objects.Figure | None" = None,
    on_select: Callable[[], None] | None = None,
) -> None:
    """Show a picture that a pointer can explore.

    Args:
        picture: A figure with `plotly()` and `matplotlib()`.
        told: What it says.
        figure: The plotly figure, where something was added to it.
        on_select: Called when a point is clicked; `selected_point` then tells which.
    """
    shown = picture.plotly() if figure is None else figure
    # The page's own ground and ink, so that they follow a change of theme at once.
    shown.update_layout(paper_bgcolor=_CLEAR, font_color=None, dragmode="zoom")
    st.plotly_chart(
        shown,
        key=told.name,
        alt=told.words,
        config=_BUTTONS,
        selection_mode="points",
        on_select="ignore" if on_select is None else on_select,
    )
    _below(picture, told)


def draw_text(picture: Any, told: Told) -> None:
    """Show a picture that is text, such as a token ribbon: it is its own alternative."""
    st.html(picture.html())
    _below(picture, told)


def selected_point(name: str) -> str | None:
    """Return the custom data of the point that was clicked in a picture; None where none is."""
    points = st.session_state.get(name, {}).get("selection", {}).get("points", [])
    found = (point["customdata"] for point in points if point.get("customdata"))
    data = next(found, None)
    return str(data[0]) if isinstance(data, list) else data


def _below(picture: Any, told: Told) -> None:
    with st.container(horizontal=True, vertical_alignment="top"):
        if told.table is not None:
            with st.expander("The numbers", icon=":material/table:"):
                st.dataframe(told.table(), hide_index=True, alt=told.words)
        offer(told.name, picture=picture, table=told.table)
