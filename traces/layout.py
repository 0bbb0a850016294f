"""The layout of a trace file: a safetensors file whose header carries its own digest.

    8 bytes    length of the header, little-endian
    header     {"__metadata__": {"format", "version", "sha256", "trace"}, tensor: {...}, ...}
    data       the tensors without gaps, those of the largest items first

The digest covers every byte before the data, its own 64 digits read as zeros: the length, what the
trace says of itself, names, types, shapes and places of tensors, and their checksums. It is checked
before the header is parsed, so that no reader acts on damaged text. It guards against damage and
careless edits, not against someone who computes it anew.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from attnscope.traces.errors import TraceError

__all__ = ["HEADER_LIMIT", "VERSION", "Entry", "arrange", "seal", "unseal"]

VERSION = 1
"""Version of the format that is written, and the newest one that can be read."""

HEADER_LIMIT = 100_000_000
"""Most bytes of a header, as in the safetensors library."""

_ALIGNMENT = 64
_NO_DIGEST = b"0" * 64
_OPENING = re.compile(
    rb'\{"__metadata__":\{"format":"attnscope-trace","version":"([0-9]{1,9})",'
    rb'"sha256":"([0-9a-f]{64})",'
)
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file.

    Attributes:
        dtype: Type of its items.
        shape: Its shape.
        start: First byte, counted from the start of the data.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Return the number of bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """Return the byte after the last one."""
        return self.start + self.nbytes


def arrange(tensors: Mapping[str, torch.Tensor]) -> dict[str, Entry]:
    """Return a place for each tensor: no gaps, every item at a multiple of its size.

    Raises:
        TraceError: A tensor is of a type that the format does not have, or is not strided.
    """
    entries: dict[str, Entry] = {}
    start = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        if tensor.dtype not in _CODES or tensor.layout is not torch.strided:
            raise TraceError(
                f"tensor {name!r} is {tensor.dtype} ({tensor.layout}); "
                f"a trace stores strided tensors of {', '.join(map(str, _CODES))}"
            )
        entries[name] = Entry(tensor.dtype, tuple(tensor.shape), start)
        start = entries[name].stop
    return entries


def seal(content: str, entries: Mapping[str, Entry]) -> bytes:
    """Return everything that stands before the data, with its digest.

    Raises:
        TraceError: The header would be larger than readers accept.
    """
    metadata = {
        "format": "attnscope-trace",
        "version": str(VERSION),
        "sha256": _NO_DIGEST.decode(),
        "trace": content,
    }
    header: dict[str, object] = {"__metadata__": metadata}
    for name, entry in entries.items():
        header[name] = {
            "dtype": _CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.stop],
        }
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    if len(text) > HEADER_LIMIT:
        raise TraceError(
            f"the header takes {len(text):,} bytes, over the limit of {HEADER_LIMIT:,}"
        )
    sealed = len(text).to_bytes(8, "little") + text
    return sealed.replace(_NO_DIGEST, hashlib.sha256(sealed).hexdigest().encode("ascii"), 1)


def unseal(sealed: bytes) -> tuple[str, dict[str, Entry]]:
    """Return what the trace says of itself and the places of its tensors.

    Raises:
        TraceError: This is no trace, a newer one, or a damaged one.
    """
    opening = _OPENING.match(sealed, 8)
    if opening is None:
        kind = "a safetensors file, but " if sealed[8:9] == b"{" else ""
        raise TraceError(f"is {kind}not a trace: it does not open as one")
    version, digest = int(opening[1]), opening[2]
    if version > VERSION:
        raise TraceError(
            f"has version {version} of the format; this attnscope reads up to {VERSION}"
        )
    if hashlib.sha256(sealed.replace(digest, _NO_DIGEST, 1)).hexdigest().encode() != digest:
        raise TraceError("is damaged: the header does not fit its digest")
    if len(sealed) % _ALIGNMENT:
        raise TraceError(f"has data at byte {len(sealed)}, not at a multiple of {_ALIGNMENT}")
    try:
        header = json.loads(sealed[8:])
        content = header.pop("__metadata__")["trace"]
        return content, {name: _entry(name, fields) for name, fields in header.items()}
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise TraceError(f"has a header that cannot be understood ({error!r})") from error


def _entry(name: str, fields: Mapping[str, object]) -> Entry:
    shape, offsets = fields["shape"], fields["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise TraceError(f"tensor {name!r} has neither shape nor place")
    if not all(type(number) is int and number >= 0 for number in (*shape, *offsets)):
        raise TraceError(f"tensor {name!r} has a size or place that is not a whole number")
    dtype = _DTYPES.get(str(fields["dtype"]))
    if dtype is None:
        raise TraceError(f"tensor {name!r} is of the unknown type {fields['dtype']!r}")
    entry = Entry(dtype, tuple(shape), offsets[0])
    if offsets[1] != entry.stop or entry.start % dtype.itemsize:
        raise TraceError(
            f"tensor {name!r} of shape {shape} takes {entry.nbytes} bytes, its place is {offsets}"
        )
    return entry
