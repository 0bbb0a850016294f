"""`relations_of`: whom one token reads and who reads it, in the mean map of some heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnscope.figures import HeadName
from attnscope.metrics import Reading
from attnscope.traces import Trace, TraceError

__all__ = ["Relations", "heads_by_layer", "relations_of", "strongest", "window_around"]

_MOST_SHOWN = 1200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relations:
    """The row and the column of one token.

    Attributes:
        position: Where the token stands.
        reads: The share of its attention that each token gets; its axis is key.
        readers: The share of each token's attention that it gets; its axis is query, and NaN stands
            where the token cannot be read.
    """

    position: int
    reads: Reading
    readers: Reading


def relations_of(trace: Trace, stack: str, position: int, heads: Sequence[HeadName]) -> Relations:
    """Return what the mean map of some heads says of one token.

    One row and one column are read of each head, O(tokens) numbers.

    Args:
        trace: What was captured.
        stack: A stack whose queries and keys are positions of one sequence.
        position: The token.
        heads: The heads, of any layers.

    Raises:
        TraceError: There is no such token or head, or no head is given.
    """
    tokens = _tokens_of(trace, stack)
    if not heads or not 0 <= position < len(tokens):
        raise TraceError(
            f"token {position} of {len(heads)} heads; there are the tokens 0 to {len(tokens) - 1}, "
            "and at least one head is needed"
        )
    row, column = torch.zeros(len(tokens)), torch.zeros(len(tokens))
    for layer, members in heads_by_layer(heads).items():
        attention = trace.attention.heads((stack, layer), members)
        row += attention.rows([position])[:, 0].float().sum(0).cpu()
        column += attention.columns([position])[..., 0].float().sum(0).cpu()
        if attention.causal:
            column[:position] = torch.nan
    return Relations(
        position=position,
        reads=_reading("reads", "Whom the token reads", "key", row / len(heads), tokens),
        readers=_reading("readers", "Who reads the token", "query", column / len(heads), tokens),
    )


def heads_by_layer(heads: Sequence[HeadName]) -> Mapping[int, list[int]]:
    """Return the numbers of the heads of each layer.

    Example:
        >>> heads_by_layer([HeadName(1, 0), HeadName(4, 2), HeadName(1, 3)])
        {1: [0, 3], 4: [2]}
    """
    members: dict[int, list[int]] = {}
    for name in heads:
        members.setdefault(name.layer, []).append(name.head)
    return members


def strongest(reading: Reading, count: int = 10) -> list[tuple[int, str, float]]:
    """Return position, token and share of the largest entries, the largest first."""
    (axis,) = reading.axes
    values = reading.values.nan_to_num(-1.0)
    best = values.topk(min(count, len(values)))
    return [
        (place, str(reading.coordinates[axis][place]), value)
        for place, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        if value > 0
    ]


def window_around(reading: Reading, position: int, most: int = _MOST_SHOWN) -> Reading:
    """Return a reading of tokens around a position, at most so many; of few tokens all."""
    (axis,) = reading.axes
    count = len(reading.values)
    if count <= most:
        return reading
    start = min(max(0, position - most // 2), count - most)
    return reading.select(**{axis: range(start, start + most)})


def _reading(name: str, title: str, axis: str, values: Tensor, tokens: tuple[str, ...]) -> Reading:
    blank = Reading(name=name, values=torch.empty(0), axes=(axis,), title=title)
    return replace(
        blank,
        values=values,
        bounds=(0.0, 1.0),
        coordinates={axis: tokens},
        positions={axis: tuple(range(len(tokens)))},
    )


def _tokens_of(trace: Trace, stack: str) -> tuple[str, ...]:
    site = trace.select(stack=stack).sites[0]
    if site.query_sequence != site.key_sequence:
        raise TraceError(
            f"{stack} reads {site.key_sequence!r} from {site.query_sequence!r}; whom a token reads "
            "and who reads it are told where both are one sequence"
        )
    return trace.sequences[site.query_sequence].tokens
