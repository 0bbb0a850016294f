"""The recordings of heads over a training that the workbench may show."""

from pathlib import Path

import streamlit as st
from pandas import DataFrame

from attnscope.app.library import Library
from attnscope.credit import read_flight
from attnscope.models.subjects.countdown import FLIGHT

__all__ = ["SHIPPED_FLIGHT", "find_recordings", "shared_recording"]

SHIPPED_FLIGHT = "countdown"
"""The name of the recording that comes with the countdown subject."""


def find_recordings(library: Library) -> dict[str, Path]:
    """Return the recordings of a store by name, and the shipped one, which comes last.

    A recording is a folder with the files of a flight recorder; the store itself may be one.
    """
    parts = sorted(library.folder.glob("flight-*.parquet"))
    found = {library.folder.name: library.folder} if parts else {}
    for part in sorted(library.folder.glob("*/flight-*.parquet")):
        found[part.parent.name] = part.parent
    if FLIGHT.is_file():
        found[SHIPPED_FLIGHT] = FLIGHT
    return found


def shared_recording(path: Path) -> DataFrame:
    """Return a recording, read once for all sessions until a file is added."""
    files = [path] if path.is_file() else sorted(path.glob("flight-*.parquet"))
    return _read(path, tuple(file.stat().st_mtime_ns for file in files))


@st.cache_data(max_entries=8, show_spinner="Reading the recording")
def _read(path: Path, stamps: tuple[int, ...]) -> DataFrame:
    del stamps  # part of the cache's key: a recording that grows is read anew
    return read_flight(path)
