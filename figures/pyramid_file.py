"""The coarse levels of a map in a file beside the trace: whole at any time, of no other map."""

import hashlib
import time
from collections.abc import Generator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attnscope.figures.errors import FigureError
from attnscope.figures.tile_pyramid import TilePyramid
from attnscope.traces import replacement

__all__ = [
    "StalePyramidError",
    "build_pyramid",
    "fill_pyramid",
    "load_stripes",
    "pyramid_path",
    "trace_identity",
]

_FORMAT = "attnscope pyramid 1"
_HEADER_LIMIT = 2**27


class StalePyramidError(FigureError):
    """A pyramid file is not of this map of this trace."""


def trace_identity(path: Path) -> str:
    """Return the SHA-256 of a trace file's header, which holds a checksum of every tensor.

    Raises:
        FigureError: The file has no such header.
    """
    with path.open("rb") as stream:
        opening = stream.read(8)
        length = int.from_bytes(opening, "little")
        header = stream.read(length) if length <= _HEADER_LIMIT else b""
    if len(opening) < 8 or len(header) != length:
        raise FigureError(f"{path} is no trace: it has no header of safetensors")
    return hashlib.sha256(opening + header).hexdigest()


def pyramid_path(trace: Path, key: str) -> Path:
    """Return where the pyramid of one map of a trace is kept.

    Args:
        trace: The trace file.
        key: What tells the map from the trace's other maps.
    """
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    return trace.with_suffix(".pyramids") / f"{name}.pyramid"


def fill_pyramid(pyramid: TilePyramid) -> Generator[float, None, None]:
    """Fill the stripes that are missing, and yield after each which share of the work is done."""
    for stripe in pyramid.missing:
        pyramid.fill(stripe)
        yield pyramid.share


def build_pyramid(
    pyramid: TilePyramid, path: Path, identity: str, *, pause: float = 5.0
) -> Generator[float, None, None]:
    """Do what `fill_pyramid` does, and keep the stripes in a file.

    The file is replaced as a whole every few seconds and at the end, also when the generator is
    closed early; after a kill the next pass goes on from what the file holds.

    Args:
        pyramid: What to fill, with what `load_stripes` found already in it.
        path: The file.
        identity: What the file belongs to.
        pause: Least seconds between two writes.

    Raises:
        OSError: The file cannot be written; the pyramid itself is filled as far as it got.
    """
    saved = time.monotonic()
    known = len(pyramid.stripes)
    try:
        for share in fill_pyramid(pyramid):
            if time.monotonic() - saved >= pause:
                _save(pyramid, path, identity)
                saved, known = time.monotonic(), len(pyramid.stripes)
            yield share
    finally:
        if len(pyramid.stripes) > known:
            _save(pyramid, path, identity)


def load_stripes(path: Path, identity: str) -> dict[str, Tensor]:
    """Return the stripes that a file holds; none where there is no file.

    Raises:
        StalePyramidError: The file belongs to another trace or map, or is damaged.
    """
    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if facts.get("format") != _FORMAT or facts.get("identity") != identity:
                raise StalePyramidError(
                    f"{path} holds {facts.get('format', 'no pyramid')} of "
                    f"{facts.get('identity', 'nothing')}, not {_FORMAT} of {identity}"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise StalePyramidError(f"{path} is damaged: {error}") from error


def _save(pyramid: TilePyramid, path: Path, identity: str) -> None:
    path.parent.mkdir(exist_ok=True)
    content = save(dict(pyramid.stripes), {"format": _FORMAT, "identity": identity})
    with replacement(path) as stream:
        stream.write(content)
    pyramid.stripes.update(load_stripes(path, identity))  # pages of the file, no memory of ours
