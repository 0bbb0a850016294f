"""`Segments` and `TokenSequence`: what the positions of one sequence are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnscope.traces.errors import TraceError

__all__ = ["Segment", "Segments", "TokenSequence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of positions with one role.

    Attributes:
        name: `system`, `prompt`, `image`, `response`, `special`, ...; names may repeat.
        start: First position.
        stop: Position after the last one.
        grid: Rows and columns of patches where the segment is an image.
    """

    name: str
    start: int
    stop: int
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse an empty or negative run, and a grid that does not fill it."""
        if not 0 <= self.start < self.stop:
            raise TraceError(
                f"segment {self.name!r} spans {self.start} to {self.stop}; "
                "it needs 0 <= start < stop"
            )
        if self.grid is not None and self.grid[0] * self.grid[1] != self.stop - self.start:
            rows, columns = self.grid
            raise TraceError(
                f"segment {self.name!r} holds {self.stop - self.start} positions, "
                f"its grid {rows} x {columns}"
            )

    @property
    def positions(self) -> range:
        """Return the positions of the segment."""
        return range(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a sequence, in order, without overlap; positions between them have no role.

    Example:
        >>> prompt = Segment(name="prompt", start=0, stop=3)
        >>> runs = Segments((prompt, Segment(name="response", start=3, stop=5)))
        >>> runs["response"]
        [3, 4]
        >>> runs.names
        ('prompt', 'response')
    """

    runs: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        """Refuse segments that overlap or stand out of order."""
        for before, after in zip(self.runs, self.runs[1:], strict=False):
            if after.start < before.stop:
                raise TraceError(
                    f"segments {before.name!r} ({before.start} to {before.stop}) and "
                    f"{after.name!r} ({after.start} to {after.stop}) overlap or stand out of order"
                )

    def __iter__(self) -> Iterator[Segment]:
        """Yield the segments in order."""
        return iter(self.runs)

    def __contains__(self, name: str) -> bool:
        """Return whether a segment of this name exists."""
        return name in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that occur, in order of first appearance."""
        return tuple(dict.fromkeys(run.name for run in self.runs))

    def __getitem__(self, name: str) -> list[int]:
        """Return the positions of all segments of this name.

        Raises:
            TraceError: No segment bears the name.
        """
        chosen = (run for run in self.runs if run.name == name)
        positions = [position for run in chosen for position in run.positions]
        if not positions:
            raise TraceError(f"no {name} segment; this sequence has {list(self.names)}")
        return positions


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """One sequence of positions: text tokens, image patches, memory slots.

    Attributes:
        name: `text`, `encoder`, `decoder`, `image`, ...: what sites refer to.
        tokens: What to print at each position.
        ids: Vocabulary ids, or None where positions are not from a vocabulary.
        segments: The roles of the positions.
        axis: What a position is: token, patch, memory, probe or channel.
    """

    name: str
    tokens: tuple[str, ...]
    ids: tuple[int, ...] | None = None
    segments: Segments = Segments()
    axis: str = "token"

    def __post_init__(self) -> None:
        """Refuse ids or segments that do not fit the tokens."""
        if self.ids is not None and len(self.ids) != len(self.tokens):
            raise TraceError(
                f"sequence {self.name!r} has {len(self.tokens)} tokens but {len(self.ids)} ids"
            )
        if self.segments.runs and self.segments.runs[-1].stop > len(self.tokens):
            last = self.segments.runs[-1]
            raise TraceError(
                f"segment {last.name!r} ends at {last.stop}, "
                f"sequence {self.name!r} at {len(self.tokens)}"
            )

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self.tokens)


Sequences = Mapping[str, TokenSequence]
