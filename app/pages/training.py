"""Training: what each head measures while a model learns, and when it became what it is."""

import streamlit as st

from attnscope.app.library import the_library
from attnscope.app.markdown_text import as_text
from attnscope.app.pictures import Told, draw
from attnscope.app.recordings import find_recordings, shared_recording
from attnscope.figures import head_flight

__all__ = ["show"]

_ALL = "the mean of all"


def show() -> None:
    """Show a recording of a training."""
    st.title("Training")
    recordings = find_recordings(the_library())
    if not recordings:
        st.info(
            "The store has no recording of a training. A flight recorder "
            "(attnscope.credit.FlightRecorder) makes one."
        )
        return
    left, middle, right = st.columns(3)
    name = left.selectbox(
        "Recording", list(recordings), key="recording", bind="query-params", format_func=as_text
    )
    table = shared_recording(recordings[name])
    metrics = sorted(table["metric"].unique())
    metric = str(middle.selectbox("Metric", metrics, key="recorded", bind="query-params"))
    probes = [_ALL, *sorted(table["probe"].unique())]
    probe = right.selectbox("Text", probes, key="probe", bind="query-params", format_func=as_text)
    values = table.loc[table["metric"] == metric, "value"]
    threshold = st.slider(
        "A head has arrived once it stays at or above",
        *_range(float(values.min()), float(values.max())),
        key=f"threshold {name} {metric}",
    )
    flight = head_flight(table, metric, probe=None if probe == _ALL else probe, threshold=threshold)
    arrived = flight.table().dropna(subset="arrival").sort_values("arrival")
    words = (
        f"A line per head: its {metric.replace('_', ' ')} over {len(flight.steps)} recorded steps, "
        f"{flight.caption}."
    )
    draw(flight, Told(name=f"training-{metric}", words=words, table=flight.table))
    st.subheader("In the order of arrival", anchor=False)
    st.dataframe(arrived, hide_index=True, alt="Heads in the order of their arrival")


def _range(least: float, most: float) -> tuple[float, float, float]:
    """Return the ends of the slider and where it begins: halfway between them.

    Example:
        >>> _range(0.0, 0.5), _range(1.0, 1.0)
        ((0.0, 0.5, 0.25), (1.0, 2.0, 1.5))
    """
    most = most if most > least else least + 1.0
    return least, most, (least + most) / 2
