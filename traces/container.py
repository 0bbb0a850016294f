"""`Container`: the tensors of a trace file, mapped into memory and checked on first use."""

import json
import mmap
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
import xxhash
from torch import Tensor

from attnscope.traces.errors import MissingTraceError, TraceError, about
from attnscope.traces.layout import HEADER_LIMIT, Entry, unseal

__all__ = ["Container", "checksum", "pieces"]

_SMALLEST_PIECE = 4096
_MOST_PIECES = 4096


def pieces(entry: Entry) -> int:
    """Return how many checksums a tensor has: one per head where its leading axis may be one."""
    if len(entry.shape) < 3 or not 1 < entry.shape[0] <= _MOST_PIECES:
        return 1
    return entry.shape[0] if entry.nbytes // entry.shape[0] >= _SMALLEST_PIECE else 1


def checksum(content: Any) -> str:
    """Return the XXH3 of some bytes: 64 bits, at the speed of memory (64 MB in about 3 ms)."""
    return xxhash.xxh3_64_hexdigest(content)


class Container:
    """An open trace file: what it says of itself, and its tensors.

    Opening reads the header. A tensor is a view of the file's pages, which the system fetches as
    they are touched and may drop again; nothing is copied, and writing into it does not reach the
    file. Every tensor of three or more axes carries one checksum per slice of its leading axis
    (the heads), every other tensor one; each is compared once, before the slice is first used.

    The file may be replaced (renamed over) while it is open. Changing it in place is noticed where
    it changes its length, or a slice that was not yet used.

    Raises:
        TraceError: The file is no trace, a newer one, cut off or damaged.
    """

    def __init__(self, path: Path) -> None:
        with about(path), _open(path) as stream:
            sealed = _read_sealed(stream)
            text, self.entries = unseal(sealed)
            self.content = _parse(text)
            self._origin = len(sealed)
            _check_places(self.entries, _size(stream) - self._origin)
            self._checksums = _checksums(self.content, self.entries)
            self._map = _mapped(stream)
        self.path = path
        self._length = len(self._map)
        self._checked: dict[str, set[int]] = {name: set() for name in self.entries}

    def tensor(self, name: str, leading: Iterable[int] | None = None) -> Tensor:
        """Return a tensor whose content has been compared with its checksums.

        Args:
            name: Name in the file.
            leading: Indices of the leading axis whose slices will be used; by default all. The
                other slices of the result must not be read.

        Raises:
            TraceError: The content does not fit its checksum.
        """
        entry, expected = self.entries[name], self._checksums[name]
        wanted = range(len(expected)) if leading is None or len(expected) == 1 else leading
        for piece in set(wanted) - self._checked[name]:
            with about(self.path):
                self._compare(name, piece)
            self._checked[name].add(piece)
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=entry.dtype)
        count = entry.nbytes // entry.dtype.itemsize
        offset = self._origin + entry.start
        flat = torch.frombuffer(self._map, dtype=entry.dtype, count=count, offset=offset)
        return flat.view(entry.shape)

    def _compare(self, name: str, piece: int) -> None:
        if self._map.size() != self._length:  # touching what was cut off would kill the process
            raise TraceError("changed its length while it was open")
        entry, expected = self.entries[name], self._checksums[name]
        length = entry.nbytes // len(expected)
        start = self._origin + entry.start + piece * length
        with memoryview(self._map) as content, content[start : start + length] as part:
            found = checksum(part)
        if found != expected[piece]:
            where = f"tensor {name!r}" + (f", slice {piece}" if len(expected) > 1 else "")
            raise TraceError(f"is damaged: {where} does not fit its checksum")


def _open(path: Path) -> BinaryIO:
    if not path.exists():
        raise MissingTraceError("there is no such file")
    if not path.is_file():
        raise TraceError("is not a file")
    return path.open("rb")


def _size(stream: BinaryIO) -> int:
    return stream.seek(0, 2)


def _read_sealed(stream: BinaryIO) -> bytes:
    size = _size(stream)
    stream.seek(0)
    opening = stream.read(8)
    length = int.from_bytes(opening, "little")
    if len(opening) < 8 or length > size - 8:
        raise TraceError(f"is not a trace, or cut off: it ends after {size} bytes, in its header")
    if length > HEADER_LIMIT:
        raise TraceError(f"is not a trace: its header would take {length:,} bytes")
    return opening + stream.read(length)


def _parse(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise TraceError(f"has a header that cannot be understood ({error!r})") from error
    if not isinstance(content, dict):
        raise TraceError("has a header that does not describe a trace")
    return content


def _check_places(entries: Mapping[str, Entry], size: int) -> None:
    """Refuse tensors with gaps or overlaps, and data of another length than theirs."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            raise TraceError(f"tensor {name!r} starts at byte {entry.start} of the data, not {end}")
        end = entry.stop
    if end > size:
        raise TraceError(f"is cut off: {size:,} of {end:,} bytes of tensors are there")
    if end < size:
        raise TraceError(f"has {size - end:,} bytes behind its last tensor")


def _checksums(content: Mapping[str, Any], entries: Mapping[str, Entry]) -> dict[str, list[str]]:
    checksums = content.get("checksums")
    if not isinstance(checksums, dict) or set(checksums) != set(entries):
        raise TraceError("has tensors without checksums, or checksums without tensors")
    for name, entry in entries.items():
        expected = checksums[name]
        if not isinstance(expected, list) or len(expected) not in {1, *entry.shape[:1]}:
            raise TraceError(f"tensor {name!r} has checksums that do not fit its shape")
    return checksums


def _mapped(stream: BinaryIO) -> mmap.mmap:
    """Map a file for reading, private to this process.

    Writable, because torch warns of buffers that are not; without reserving memory for it, which
    would limit files to the size of the memory.
    """
    if sys.platform != "linux":
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    no_reserve = 0x4000  # MAP_NORESERVE, which mmap does not name before Python 3.13
    flags = mmap.MAP_PRIVATE | no_reserve
    return mmap.mmap(stream.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
