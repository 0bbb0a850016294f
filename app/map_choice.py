"""`MapChoice`: which map of which trace is wanted, as plain facts that a cache can be keyed by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attnscope.app.library import shared_trace
from attnscope.attention import AttentionOperator
from attnscope.figures import (
    HeadMap,
    difference_map,
    gradient_map,
    pattern_map,
    saliency_map,
    trace_identity,
)
from attnscope.traces import TokenSequence, Trace

__all__ = ["QUANTITIES", "HeadGroup", "MapChoice"]

_GradientMap = Callable[[AttentionOperator, AttentionOperator], HeadMap]

QUANTITIES: dict[str, _GradientMap | None] = {
    "attention": None,
    "gradient": gradient_map,
    "saliency": saliency_map,
}
"""What a map can show of heads; None where it takes no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGroup:
    """Some heads of a layer of a stored trace; their mean is shown.

    Attributes:
        path: The trace file.
        stack: Their stack.
        layer: Their layer.
        heads: Their numbers.
    """

    path: Path
    stack: str
    layer: int
    heads: tuple[int, ...]

    @property
    def title(self) -> str:
        """Return layer and heads in words."""
        if len(self.heads) == 1:
            return f"layer {self.layer}, head {self.heads[0]}"
        return f"layer {self.layer}, mean of heads {', '.join(map(str, self.heads))}"

    @property
    def key(self) -> str:
        """Return what tells these heads from others of the same trace."""
        return f"{self.stack} {self.layer} {sorted(self.heads)}"

    def map(self, quantity: str) -> HeadMap:
        """Return their map, of which nothing is computed yet.

        Raises:
            TraceError: The trace holds no such heads, or no gradients.
        """
        trace: Trace = shared_trace(self.path)
        where, heads = (self.stack, self.layer), list(self.heads)
        attention = trace.attention.heads(where, heads)
        make = QUANTITIES[quantity]
        if make is None:
            return pattern_map(attention)
        return make(attention, trace.gradient.heads(where, heads))

    def sequences(self) -> tuple[TokenSequence, TokenSequence]:
        """Return the sequences that queries and keys are positions of."""
        trace: Trace = shared_trace(self.path)
        for site in trace.sites:
            if (site.stack, site.layer) == (self.stack, self.layer):
                return trace.sequences[site.query_sequence], trace.sequences[site.key_sequence]
        trace.attention[self.stack, self.layer]  # raises, and says what there is
        raise LookupError(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapChoice:
    """A quantity of some heads, or its difference to that of others.

    Attributes:
        quantity: One of `QUANTITIES`.
        heads: The heads.
        minus: What is taken from them; None for nothing.
    """

    quantity: str
    heads: HeadGroup
    minus: HeadGroup | None = None

    @property
    def title(self) -> str:
        """Return in words what the map shows."""
        own = f"{self.quantity.capitalize()} of {self.heads.title}"
        if self.minus is None:
            return own
        same = self.minus.path == self.heads.path
        return f"{own} − {'' if same else f'{self.minus.path.stem}: '}{self.minus.title}"  # noqa: RUF001

    @property
    def key(self) -> str:
        """Return what tells the map from others of the same trace."""
        other = "" if self.minus is None else f" minus {self.minus.path.name} {self.minus.key}"
        return f"{self.quantity} {self.heads.key}{other}"

    @property
    def identity(self) -> str:
        """Return what the map is computed from: the traces' content, and its key."""
        paths = [group.path for group in (self.heads, self.minus) if group is not None]
        return " ".join([*map(trace_identity, paths), self.key])

    def map(self) -> HeadMap:
        """Return the map, of which nothing is computed yet.

        Raises:
            TraceError: A trace holds no such heads, or no gradients.
            FigureError: The two maps have no difference.
        """
        own = self.heads.map(self.quantity)
        return own if self.minus is None else difference_map(own, self.minus.map(self.quantity))
