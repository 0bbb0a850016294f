"""`AlignedSequences`: sequences of a batch set side by side from their first token on.

Cut out of padded or packed rows and filled up on the right, every sequence is plain causal: what
stands behind its end is read by none of its tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.credit.layout import Stretch

__all__ = ["AlignedSequences", "aligned_chunks"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlignedSequences:
    """Some sequences of a pass, and how to get from its rows to them and on to their responses.

    Attributes:
        numbers: Which sequences of the layout they are.
        source: Place of each position in the flattened rows of the pass.
        responses: Which positions belong to the response.
        columns: Position of each column of a row metric, the one before the response first.
        inside: Which of those columns exist.
    """

    numbers: tuple[int, ...]
    source: Int[Tensor, "sequence position"]
    responses: Bool[Tensor, "sequence 1 position"]
    columns: Int[Tensor, "sequence row"]
    inside: Bool[Tensor, "sequence row"]

    def to(self, device: torch.device) -> "AlignedSequences":
        """Return the same with its indices on a device."""
        names = ("source", "responses", "columns", "inside")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def align(
        self, part: Float[Tensor, "batch head column dim"]
    ) -> Float[Tensor, "sequence head position dim"]:
        """Return queries or keys of these sequences."""
        flat = part.transpose(1, 2).reshape(-1, part.shape[1], part.shape[3])
        return flat[self.source].transpose(1, 2)

    def by_row(
        self, values: Float[Tensor, "sequence head position"]
    ) -> Float[Tensor, "sequence head row"]:
        """Return a row metric from the row before the response on, NaN behind its end."""
        index = self.columns.unsqueeze(1).expand(-1, values.shape[1], -1)
        return values.gather(-1, index).masked_fill(~self.inside.unsqueeze(1), torch.nan)


def aligned_chunks(
    stretches: Sequence[tuple[int, Stretch]], layout: tuple[int, int, int], per_chunk: int
) -> Iterator[AlignedSequences]:
    """Yield the sequences of a pass, a few at a time.

    Args:
        stretches: Numbers and places of the sequences.
        layout: First row of the pass, columns of its rows, width of a response.
        per_chunk: About how many positions a chunk may have; one sequence at least.
    """
    first_row, columns, width = layout
    waiting = list(stretches)
    while waiting:
        longest, count = waiting[0][1].length, 1
        while count < len(waiting):
            longest = max(longest, waiting[count][1].length)
            if longest * (count + 1) > per_chunk:
                break
            count += 1
        yield _aligned(waiting[:count], first_row, columns, width)
        waiting = waiting[count:]


def _aligned(
    chosen: list[tuple[int, Stretch]], first_row: int, columns: int, width: int
) -> AlignedSequences:
    facts = torch.tensor(
        [
            [
                (own.row - first_row) * columns + own.start,
                own.length,
                own.first - own.start,
                own.end - own.start,
            ]
            for _, own in chosen
        ]
    )
    origin, length, first, end = facts.T.unsqueeze(-1)
    position = torch.arange(int(length.max()))
    row = first - 1 + torch.arange(width + 1)
    return AlignedSequences(
        numbers=tuple(number for number, _ in chosen),
        source=origin + torch.minimum(position, length - 1),
        responses=((position >= first) & (position < end)).unsqueeze(1),
        columns=row.clamp(0, len(position) - 1),
        inside=(row >= 0) & (row < end),
    )
