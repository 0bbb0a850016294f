"""`show_kept`: the readings that a trace keeps, as tables and pictures of a page."""

import pandas
import streamlit as st

from attnscope.app.pictures import Told, draw, draw_text
from attnscope.app.screen import visible
from attnscope.figures import HeadGrid, reading_pictures
from attnscope.traces import Trace

__all__ = ["kept_table", "show_kept"]


def show_kept(trace: Trace) -> None:
    """Show the readings of a trace: what they are, and one of them as a picture."""
    st.subheader("Its readings", anchor=False)
    table = kept_table(trace)
    st.dataframe(table, hide_index=True, alt="The readings that the trace keeps")
    pictures = reading_pictures(trace)
    if not pictures:
        return
    name = st.selectbox("Show", list(pictures), format_func=visible, key="kept reading")
    picture = pictures[name]
    title = trace.readings[name].title or name
    told = Told(name=f"kept {name}", words=f"{title}, as the trace keeps it")
    (draw if isinstance(picture, HeadGrid) else draw_text)(picture, told)


def kept_table(trace: Trace) -> pandas.DataFrame:
    """Return a row per reading that a trace keeps."""
    rows = [
        (
            visible(name),
            visible(reading.title),
            visible(" x ".join(map(str, reading.values.shape))),
            visible(", ".join(reading.axes)),
            visible(reading.unit),
            visible(reading.stack),
            visible(", ".join(f"{key} {value}" for key, value in reading.options.items())),
        )
        for name, reading in trace.readings.items()
    ]
    columns = ["reading", "title", "size", "axes", "unit", "stack", "options"]
    return pandas.DataFrame(rows, columns=columns)
