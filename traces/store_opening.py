"""`opened`: a trace of a store, mapped, read in ranges, or copied to this machine first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnscope.traces.container import Container
from attnscope.traces.errors import StoreError
from attnscope.traces.pages import RangePages
from attnscope.traces.reader import open_trace, trace_of
from attnscope.traces.store_deposit import checksum_of
from attnscope.traces.store_files import StoreFiles
from attnscope.traces.store_log import new_id
from attnscope.traces.trace import Trace

__all__ = ["opened"]


def opened(files: StoreFiles, row: Mapping[str, Any], cache: Path | None) -> Trace:
    """Return the trace of a row of the index.

    Args:
        files: The files of the store.
        row: The row.
        cache: A folder to copy it to; by default what lies elsewhere is read in ranges.

    Raises:
        StoreError: The copy is another file than was put there.
        TraceError: The trace is damaged.
    """
    path = row["path"]
    if files.local is not None:
        return open_trace(files.local / path)
    if cache is not None:
        return open_trace(_cached(files, row, cache))
    pages = RangePages(
        files.path(path), row["bytes"], lambda low, high: files.read_range(path, low, high)
    )
    return trace_of(Container(pages))


def _cached(files: StoreFiles, row: Mapping[str, Any], cache: Path) -> Path:
    """Return the copy of a trace on this machine, made where it is not there yet."""
    target = cache / f"{row['id']}.safetensors"
    if target.is_file() and target.stat().st_size == row["bytes"]:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f".{new_id()}.part"
    try:
        files.download(row["path"], part)
        if checksum_of(part) != (row["bytes"], row["checksum"]):
            raise StoreError(f"{files.path(row['path'])} is not what was put there")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
