"""What was measured of the traces of the store: once, for all sessions, within a bound."""

import json
from pathlib import Path

import streamlit as st

from attnscope.app.library import shared_trace, stamp_of
from attnscope.figures import TracePictures
from attnscope.metrics import METRICS, Metric, Reading, measure
from attnscope.traces import Trace

__all__ = [
    "head_metrics",
    "head_reading",
    "shared_pictures",
    "shared_reading",
    "shown_positions",
]

_READINGS = 128
_PICTURES = 8


def shared_reading(path: Path, stack: str, metric: str, **options: object) -> Reading:
    """Return the reading of a metric on a stack of a stored trace.

    Raises:
        MetricError: The trace lacks what the metric needs.
        TraceError: The file is no trace, or is damaged.
    """
    return _measured(*stamp_of(path), stack, metric, json.dumps(options))


def head_reading(path: Path, stack: str, metric: str) -> Reading:
    """Return one number per head: a reading of tokens is averaged over the response's tokens.

    Without a response all tokens count; what has another axis besides is averaged over that.

    Raises:
        MetricError: The trace lacks what the metric needs.
    """
    trace = shared_trace(path)
    positions = shown_positions(trace, stack)
    options = {"queries": positions} if METRICS[metric].options.get("queries", 0) is None else {}
    reading = shared_reading(path, stack, metric, **options)
    site = trace.select(stack=stack).sites[0]
    own = ("query", "key") if site.query_sequence == site.key_sequence else ("query",)
    for axis in own:
        if axis in reading.axes:
            reading = reading.select(**{axis: positions})
    return reading.mean(*(axis for axis in reading.axes if axis not in ("layer", "head")))


def shared_pictures(path: Path, stack: str) -> TracePictures:
    """Return what a report shows of a stack: its readings and pictures.

    Raises:
        TraceError: The trace holds no such stack.
    """
    return _pictures(*stamp_of(path), stack)


def shown_positions(trace: Trace, stack: str) -> list[int]:
    """Return the positions that a page speaks of: the response, or all where there is none."""
    site = trace.select(stack=stack).sites[0]
    queries = trace.sequences[site.query_sequence]
    if "response" in queries.segments:
        return queries.segments["response"]
    return list(range(len(queries)))


def head_metrics() -> list[Metric]:
    """Return the metrics that tell heads apart, in the order of the catalog."""
    return [metric for metric in METRICS.values() if {"layer", "head"} <= set(metric.axes)]


@st.cache_resource(max_entries=_READINGS, show_spinner="Measuring")
def _measured(
    path: str, modified: int, size: int, stack: str, metric: str, options: str
) -> Reading:
    return measure(shared_trace(Path(path)), metric, stack=stack, **json.loads(options))


@st.cache_resource(max_entries=_PICTURES, show_spinner="Measuring")
def _pictures(path: str, modified: int, size: int, stack: str) -> TracePictures:
    return TracePictures.of(shared_trace(Path(path)), stack)
