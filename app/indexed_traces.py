"""`indexed_traces`: what the index of a `TraceStore` says of its traces, read once per state."""

from pathlib import Path
from typing import Any

import streamlit as st

from attnscope.traces import TraceStore

__all__ = ["STORED", "indexed_traces"]

STORED = ("attic/", "traces/")
"""Folders of a store whose trace files its index speaks for."""

_INDEXES = 4


def indexed_traces(store: TraceStore) -> list[dict[str, Any]]:
    """Return the fields of a `Holding` for each trace of a store on this machine, by path.

    Raises:
        StoreError: The index is damaged.
    """
    return _fields(store.address, tuple(store.files.names("index")))


@st.cache_resource(max_entries=_INDEXES, show_spinner=False)
def _fields(address: str, state: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = TraceStore(address).index().to_pylist()
    return [_field(Path(address), row) for row in rows if row["path"]]


def _field(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    segments = {segment["name"]: segment["tokens"] for segment in row["segments"]}
    return {
        "name": row["path"],
        "title": row["name"] or row["path"],
        "id": row["id"],
        "tags": tuple(row["tags"]),
        "path": folder / row["path"],
        "size": row["bytes"],
        "modified": row["time"].timestamp(),
        "model": row["model"],
        "tokens": (),
        "length": row["tokens"],
        "response": segments.get("response", 0),
        "layers": row["layers"],
        "heads": row["heads"],
        "gradients": bool(row["gradient"]),
        "notes": {},
    }
