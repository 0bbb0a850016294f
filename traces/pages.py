"""`FilePages` and `RangePages`: the bytes of a trace as memory, filled where it is touched."""

import mmap
import sys
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from attnscope.traces.errors import MissingTraceError, TraceError
from attnscope.traces.layout import HEADER_LIMIT

__all__ = ["FilePages", "Pages", "RangePages"]

_FIRST_READ = 1 << 18
"""Bytes of the first range read: the header of 28 layers and 4,096 tokens takes about half."""


@runtime_checkable
class Pages(Protocol):
    """The bytes of one trace.

    Attributes:
        name: What errors call it.
        size: Number of bytes.
        opening: Length and header.
        memory: As many bytes of memory; those that were not required may read as anything.
    """

    name: str
    size: int
    opening: bytes
    memory: mmap.mmap

    def require(self, start: int, stop: int) -> None:
        """Make sure that these bytes of the memory are those of the trace."""
        ...


class FilePages:
    """The bytes of a file on this machine, mapped; the system fetches pages as they are touched.

    Raises:
        TraceError: There is no such file, or it ends in its header.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with _open(path) as stream:
            self.size = stream.seek(0, 2)
            stream.seek(0)
            length = _header_length(stream.read(8), self.size)
            stream.seek(0)
            self.opening = stream.read(8 + length)
            self.memory = _mapped(stream)

    def require(self, start: int, stop: int) -> None:
        """Refuse a file that was cut off: touching what is gone would kill the process.

        Raises:
            TraceError: The file has another length than when it was opened.
        """
        if self.memory.size() != self.size:
            raise TraceError("changed its length while it was open")


class RangePages:
    """The bytes of a trace elsewhere, fetched in ranges when they are asked for, each once.

    Memory is reserved by address only: what was never fetched takes none (on Linux).

    Args:
        name: What errors call it.
        size: Number of bytes.
        fetch: Returns the bytes from a start to a stop.

    Raises:
        TraceError: The bytes end in the header.
    """

    def __init__(self, name: str, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self.name, self.size, self._fetch = name, size, fetch
        self._held: list[tuple[int, int]] = []
        first = fetch(0, min(size, _FIRST_READ))
        end = 8 + _header_length(first[:8], size)
        self.opening = first[:end] if end <= len(first) else first + fetch(len(first), end)
        self.memory = _anonymous(max(size, 1))
        self._keep(0, first)

    def require(self, start: int, stop: int) -> None:
        """Fetch what of a range is not here yet, in one request per gap.

        Raises:
            TraceError: Fewer bytes came than there should be.
        """
        for low, high in self._gaps(start, stop):
            content = self._fetch(low, high)
            if len(content) != high - low:
                raise TraceError(f"gave {len(content):,} bytes of {high - low:,} from {low:,} on")
            self._keep(low, content)

    def _keep(self, start: int, content: bytes) -> None:
        self.memory[start : start + len(content)] = content
        spans = sorted([*self._held, (start, start + len(content))])
        self._held = spans[:1]
        for low, high in spans[1:]:
            before = self._held[-1]
            if low <= before[1]:
                self._held[-1] = (before[0], max(before[1], high))
            else:
                self._held.append((low, high))

    def _gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return what of a range is not held, in order."""
        gaps: list[tuple[int, int]] = []
        place = max(bisect_right(self._held, (start, sys.maxsize)) - 1, 0)
        for low, high in self._held[place:]:
            if low >= stop:
                break
            if start < low:
                gaps.append((start, low))
            start = max(start, high)
        return [*gaps, (start, stop)] if start < stop else gaps


def _open(path: Path) -> BinaryIO:
    if not path.exists():
        raise MissingTraceError("there is no such file")
    if not path.is_file():
        raise TraceError("is not a file")
    return path.open("rb")


def _header_length(opening: bytes, size: int) -> int:
    length = int.from_bytes(opening, "little")
    if len(opening) < 8 or length > size - 8:
        raise TraceError(f"is not a trace, or cut off: it ends after {size} bytes, in its header")
    if length > HEADER_LIMIT:
        raise TraceError(f"is not a trace: its header would take {length:,} bytes")
    return length


_NO_RESERVE = 0x4000  # MAP_NORESERVE, which mmap does not name before Python 3.13


def _mapped(stream: BinaryIO) -> mmap.mmap:
    """Map a file for reading, private to this process.

    Writable, because torch warns of buffers that are not; without reserving memory for it, which
    would limit files to the size of the memory.
    """
    if sys.platform != "linux":
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=protection)


def _anonymous(size: int) -> mmap.mmap:
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
