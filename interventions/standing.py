"""`Standing`: where the queries and keys of one call stand in the inputs that a model was given.

A model that generates sees a few columns at a time: all of the prompt, then one token per step. A
column is a place in the padded batch; a position counts from the first token of a row's own input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attnscope.attention import AttentionOperator, Mask
from attnscope.interventions.errors import InterventionError
from attnscope.traces import TokenSequence

__all__ = ["RESPONSE", "Positions", "Standing", "origins", "prompt_length", "segment_positions"]

RESPONSE = "response"

Positions = str | tuple[int, ...]
"""A segment by its name, or positions counted from a row's own first token."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where the rows, queries and keys of one call stand.

    Attributes:
        sequences: The input of each row, prompt first; empty where nothing is known of them.
        padding: Columns before the first token of each row.
        first_query: Column of query 0.
        queries: Number of queries.
        first_key: Column of key 0.
        keys: Number of keys.
        device: Where the call's tensors lie.
    """

    sequences: tuple[TokenSequence, ...]
    padding: tuple[int, ...]
    first_query: int
    queries: int
    first_key: int
    keys: int
    device: torch.device
    _known: dict[Any, Any] = field(default_factory=dict)

    def known(self, name: Any, make: Callable[[], Any]) -> Any:
        """Return what a method worked out for an earlier layer of the same forward pass."""
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    @property
    def rows(self) -> int:
        """Return the number of rows of the batch."""
        return len(self.padding)

    def positions(self) -> Int[Tensor, "row query"]:
        """Return the position of each query in its row's own input; negative in padding."""
        return self.known(
            "positions", lambda: self._columns(self.first_query, self.queries) - self._padding()
        )

    def key_positions(self) -> Int[Tensor, "row key"]:
        """Return the position of each key in its row's own input; negative in padding."""
        return self.known(
            "key positions", lambda: self._columns(self.first_key, self.keys) - self._padding()
        )

    def predicting(self) -> Bool[Tensor, "row query"]:
        """Return which queries predict a token of the response: the prompt's last one, and on.

        What a method does to these is the same whether the response comes token by token or is
        read in one pass.
        """
        return self.known("predicting", lambda: self.positions() >= self.lengths() - 1)

    def keys_in(self, what: Positions) -> Bool[Tensor, "row key"]:
        """Return which keys belong to a segment of their row's input, or stand at positions of it.

        `response` is all that follows the prompt.

        Raises:
            InterventionError: Some row has no such segment.
        """
        return self.known(("keys", what), lambda: self._members(what, self.key_positions()))

    def queries_in(self, what: Positions) -> Bool[Tensor, "row query"]:
        """Return which queries belong to a segment of their row's input, or stand at positions."""
        return self.known(("queries", what), lambda: self._members(what, self.positions()))

    def keys_after(self, name: str) -> Bool[Tensor, "row key"]:
        """Return which keys stand after the last one of a segment."""
        return self.known(("keys after", name), lambda: self.key_positions() >= self._ends(name))

    def queries_after(self, name: str) -> Bool[Tensor, "row query"]:
        """Return which queries stand after the last position of a segment."""
        return self.known(("queries after", name), lambda: self.positions() >= self._ends(name))

    def _members(self, what: Positions, positions: Tensor) -> Tensor:
        found = torch.zeros(positions.shape, dtype=torch.bool, device=self.device)
        for row, chosen in enumerate(self._positions_of(what)):
            for low, high in _runs(chosen):
                found[row] |= (positions[row] >= low) & (positions[row] < high)
        return found

    def _positions_of(self, what: Positions) -> list[Sequence[int]]:
        if not isinstance(what, str):
            return [sorted(set(what))] * self.rows
        if what == RESPONSE:
            return [range(prompt_length(each), 2**31) for each in self._require()]
        return [segment_positions(sequence, what) for sequence in self._require()]

    def _ends(self, name: str) -> Tensor:
        ends = [max(segment_positions(each, name)) + 1 for each in self._require()]
        return torch.tensor(ends, device=self.device)[:, None]

    def lengths(self) -> Int[Tensor, "row 1"]:
        """Return how many tokens of each row come before the response."""
        lengths = [prompt_length(sequence) for sequence in self._require()]
        return torch.tensor(lengths, device=self.device)[:, None]

    def _require(self) -> tuple[TokenSequence, ...]:
        if not self.sequences:
            raise InterventionError(
                "this method has to know where the prompt ends; give intervening() the input, "
                "encoded=subject.encode(...), or a list of them for a batch"
            )
        return self.sequences

    def _columns(self, first: int, count: int) -> Tensor:
        return torch.arange(first, first + count, device=self.device)

    def _padding(self) -> Tensor:
        return torch.tensor(self.padding, device=self.device)[:, None]


def origins(attention: AttentionOperator) -> tuple[int, int]:
    """Return the columns of query 0 and key 0 of a running model's attention.

    The library's own masks say it (a cache may keep the last keys only, or room for more); without
    them the last query stands at the last key.
    """
    mask = getattr(attention, "mask", None)
    if isinstance(mask, Mask) and mask.after is not None:
        return mask.query_origin, mask.key_origin
    return max(0, attention.keys - attention.queries), 0


def prompt_length(sequence: TokenSequence) -> int:
    """Return how many tokens come before the response, all of them where there is none yet."""
    starts = [run.start for run in sequence.segments if run.name == RESPONSE]
    return min(starts, default=len(sequence))


def segment_positions(sequence: TokenSequence, name: str) -> list[int]:
    """Return the positions of a segment.

    Raises:
        InterventionError: There is no such segment.
    """
    if name not in sequence.segments:
        raise InterventionError(
            f"no {name} segment in the input; it has {list(sequence.segments.names)}"
        )
    return sequence.segments[name]


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Return sorted positions as runs from a first one to one past the last."""
    if isinstance(positions, range):
        return [(positions.start, positions.stop)]
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
    return runs
