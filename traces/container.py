"""`Container`: the tensors of a trace file, mapped into memory and checked on first use."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from attnscope.traces.errors import TraceError, about
from attnscope.traces.layout import Entry, unseal
from attnscope.traces.pages import FilePages, Pages

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

    Args:
        source: The file, or the pages of a trace that lies elsewhere.

    Raises:
        TraceError: The file is no trace, a newer one, cut off or damaged.
    """

    def __init__(self, source: Path | Pages) -> None:
        self.path = str(source) if isinstance(source, Path) else source.name
        with about(self.path):
            pages = FilePages(source) if isinstance(source, Path) else source
            text, self.entries = unseal(pages.opening)
            self.content = _parse(text)
            self._origin = len(pages.opening)
            _check_places(self.entries, pages.size - self._origin)
            self._checksums = _checksums(self.content, self.entries)
        self._pages = pages
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
        with about(self.path):
            for run in _runs(sorted(set(wanted) - self._checked[name])):
                self._compare(name, run)
                self._checked[name].update(run)
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=entry.dtype)
        count = entry.nbytes // entry.dtype.itemsize
        offset = self._origin + entry.start
        flat = torch.frombuffer(self._pages.memory, dtype=entry.dtype, count=count, offset=offset)
        return flat.view(entry.shape)

    def _compare(self, name: str, run: Sequence[int]) -> None:
        """Fetch slices that follow each other, and compare each with its checksum."""
        entry, expected = self.entries[name], self._checksums[name]
        length = entry.nbytes // len(expected)
        origin = self._origin + entry.start
        self._pages.require(origin + run[0] * length, origin + (run[-1] + 1) * length)
        for piece in run:
            start = origin + piece * length
            with memoryview(self._pages.memory) as content, content[start : start + length] as part:
                found = checksum(part)
            if found != expected[piece]:
                where = f"tensor {name!r}" + (f", slice {piece}" if len(expected) > 1 else "")
                raise TraceError(f"is damaged: {where} does not fit its checksum")


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Yield ascending numbers as runs of consecutive ones."""
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            yield range(numbers[start], numbers[place - 1] + 1)
            start = place


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
