"""Training: what each head measures while a model learns, and when it became what it is."""

from math import ceil, floor, log10

import streamlit as st

from attnscope.app.address import keep, kept
from attnscope.app.choices import menu
from attnscope.app.library import the_library
from attnscope.app.markdown_text import as_text
from attnscope.app.pictures import Told, draw
from attnscope.app.recordings import find_recordings, shared_recording
from attnscope.figures import head_flight

__all__ = ["as_number", "show", "slider_range"]

_ALL = "the mean of all"
_THRESHOLD = "threshold-{}"


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
    with left:
        name = menu("Recording", "recording", list(recordings), written=as_text)
    table = shared_recording(recordings[name])
    metrics = sorted(table["metric"].unique())
    with middle:
        metric = menu("Metric", "recorded", metrics)
    with right:
        probe = menu("Text", "probe", [_ALL, *sorted(table["probe"].unique())], written=as_text)
    values = table.loc[table["metric"] == metric, "value"].dropna()
    ends = float(values.min()), float(values.max())
    threshold = _threshold(*ends, metric) if len(values) else None
    keep(**{_THRESHOLD.format(other): None for other in metrics if other != metric})
    flight = head_flight(table, metric, probe=None if probe == _ALL else probe, threshold=threshold)
    arrived = flight.table().dropna(subset="arrival").sort_values("arrival")
    words = (
        f"A line per head: its {metric.replace('_', ' ')} over {len(flight.steps)} recorded steps, "
        f"{flight.caption}."
    )
    draw(flight, Told(name=f"training-{metric}", words=words, table=flight.table))
    st.subheader("In the order of arrival", anchor=False)
    st.dataframe(arrived, hide_index=True, alt="Heads in the order of their arrival")


def _threshold(least: float, most: float, metric: str) -> float:
    """Return the threshold that is chosen between the ends of a metric; the address says it."""
    least, most, first, decimals = slider_range(least, most)
    key = _THRESHOLD.format(metric)
    before = st.session_state.get(key, as_number(kept(key)))
    st.session_state[key] = first if before is None or not least <= before <= most else before
    threshold = st.slider(
        "A head has arrived once it stays at or above",
        *(least, most),
        step=10.0**-decimals,
        format=f"%.{decimals}f",
        key=key,
    )
    keep(**{key: f"{threshold:.{decimals}f}"})
    return threshold


def as_number(text: str | None) -> float | None:
    """Return the number that a text out of an address is; None if it is none.

    Example:
        >>> as_number("0.5"), as_number("high"), as_number(None)
        (0.5, None, None)
    """
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def slider_range(least: float, most: float) -> tuple[float, float, float, int]:
    """Return the ends of a slider, where it begins (halfway) and its decimals: 100 steps or more.

    Example:
        >>> slider_range(0.0, 0.5), slider_range(0.1666, 0.9), slider_range(1.0, 1.0)
        ((0.0, 0.5, 0.25, 3), (0.166, 0.9, 0.533, 3), (1.0, 2.0, 1.5, 2))
        >>> slider_range(2.5, 700.2)
        (2.0, 701.0, 352.0, 0)
    """
    most = most if most > least else least + 1.0
    decimals = max(0, 2 - floor(log10(most - least)))
    unit = 10**decimals
    least, most = floor(least * unit) / unit, ceil(most * unit) / unit
    return least, most, round((least + most) / 2, decimals), decimals
