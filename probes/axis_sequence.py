"""The sequence that an operator's axis runs over, where the operator itself says what it is."""

import math
from collections.abc import Mapping, Sequence

from attnscope.traces import Segment, Segments, TokenSequence

__all__ = ["axis_sequence", "raster"]


def axis_sequence(
    axis: str, length: int, grid: Sequence[int] | None, known: Mapping[str, TokenSequence]
) -> TokenSequence:
    """Return the known sequence that an axis runs over, or a new one under a free name.

    Args:
        axis: What a position is: token, patch, memory, channel, ...
        length: Number of positions.
        grid: Rows and columns, or frames, rows and columns, of the last positions.
        known: Sequences by name, those of the input and those seen before.
    """
    grid = grid if grid is not None and len(grid) > 1 else None
    for name in _candidates(axis, length, grid, known):
        if name not in known:
            return _new(name, axis, length, grid)
        if len(known[name]) == length and (grid is None or _has_grid(known[name], grid)):
            return known[name]
    raise AssertionError("the last candidate names the length, so that it is free or fits")


def raster(name: str, length: int, grid: Sequence[int], *, axis: str = "patch") -> TokenSequence:
    """Return a sequence whose last positions are a grid; class and register tokens come first.

    Example:
        >>> raster("image", 5, (2, 2)).tokens
        ('[0]', 'r0c0', 'r0c1', 'r1c0', 'r1c1')
    """
    *frames, rows, columns = grid
    extra = length - math.prod(grid)
    labels = [f"[{place}]" for place in range(extra)]
    for number in range(math.prod(frames)):
        frame = f"f{number}" if frames else ""
        labels += [f"{frame}r{row}c{column}" for row in range(rows) for column in range(columns)]
    segments = [Segment(name="special", start=0, stop=extra)] if extra else []
    shape = (math.prod(frames) * rows, columns)
    segments.append(Segment(name="image", start=extra, stop=length, grid=shape))
    return TokenSequence(
        name=name, tokens=tuple(labels), axis=axis, segments=Segments(tuple(segments))
    )


def _candidates(
    axis: str, length: int, grid: Sequence[int] | None, known: Mapping[str, TokenSequence]
) -> list[str]:
    if grid is not None:
        base = "image" if len(grid) == 2 else "video"
        sized = f"{base} {'x'.join(map(str, grid))}"
        return [base, sized, f"{sized} of {length}"]
    base = "input" if axis == "token" else axis
    spoken = ("text", "decoder", "encoder") if axis == "token" else ()
    return [*(name for name in spoken if name in known), base, f"{base} {length}"]


def _new(name: str, axis: str, length: int, grid: Sequence[int] | None) -> TokenSequence:
    if grid is not None:
        return raster(name, length, grid, axis=axis)
    return TokenSequence(name=name, tokens=tuple(map(str, range(length))), axis=axis)


def _has_grid(sequence: TokenSequence, grid: Sequence[int]) -> bool:
    shape = (math.prod(grid[:-1]), grid[-1])
    return any(segment.grid == shape for segment in sequence.segments)
