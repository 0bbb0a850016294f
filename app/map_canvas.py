"""`map_canvas`: the component that draws a map in the browser and follows wheel, hand and keys."""

from importlib.resources import files
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

__all__ = ["asked_of", "map_canvas"]


def map_canvas(packet: bytes, *, key: str) -> None:
    """Show a map; what the browser asks next starts the fragment around this again.

    Args:
        packet: Facts and tiles, as `attnscope.app.map_answers.packet` makes them.
        key: Name of the component, by which `asked_of` finds its question.
    """
    show = component(
        "attnscope_map",
        html=_content("map_canvas.html"),
        css=_content("map_canvas.css"),
        js=_content("map_canvas.js") + _content("map_drawing.js"),
    )
    show(data=packet, key=key, on_request_change=_no_answer_needed)


def asked_of(key: str) -> Any:
    """Return what the browser asked last: not to be trusted; None where it asked nothing yet."""
    state = st.session_state.get(key)
    return None if state is None else state.get("request")


def _content(name: str) -> str:
    return files("attnscope.app").joinpath(name).read_text(encoding="utf-8")


def _no_answer_needed() -> None:
    """Exist, as the component keeps only states that somebody listens to."""
