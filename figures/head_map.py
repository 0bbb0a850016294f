"""`HeadMap`: a map that is never whole: its sizes, what exists in it, and its entries on demand.

A head's pattern, its gradient, their product and the difference of two maps all look alike from
here, so that whatever reduces or draws maps is written once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.figures.errors import FigureError
from attnscope.figures.scale import Bounds

__all__ = ["HeadMap", "difference_map", "gradient_map", "pattern_map", "quantity", "saliency_map"]

Entries = Callable[[slice, slice], Float[Tensor, "query key"]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadMap:
    """One map, by what it answers for a block of it.

    Attributes:
        queries: Number of rows.
        keys: Number of columns.
        offset: Key index at the position of query 0 where later keys do not exist; None where all
            keys do.
        valid: Which rows exist.
        entries: Gives a block; what it gives for entries that do not exist is not looked at.
        label: The quantity.
        bounds: What values it can take at all; None where open.
        axes: What a query and what a key is.
        depth: Maps of which each block is the mean, which a block of memory has to hold.
    """

    queries: int
    keys: int
    offset: int | None
    valid: Bool[Tensor, " query"]
    entries: Entries
    label: str
    bounds: Bounds
    axes: tuple[str, str] = ("token", "token")
    depth: int = 1

    @property
    def signed(self) -> bool:
        """Return whether entries may be negative."""
        return self.bounds[0] is None

    def key_stop(self, query_stop: int) -> int:
        """Return behind which key nothing exists for the queries before `query_stop`."""
        if self.offset is None:
            return self.keys
        return max(0, min(self.keys, query_stop + self.offset))

    def block(self, queries: range, keys: range) -> Float[Tensor, "some_query some_key"]:
        """Return a block in float32 on the CPU, with 0 at what does not exist."""
        with torch.no_grad():
            block = self.entries(
                slice(queries.start, queries.stop), slice(keys.start, keys.stop)
            ).to("cpu", torch.float32)
        valid = self.valid[queries.start : queries.stop]
        if not bool(valid.all()):
            block = block.masked_fill(~valid.unsqueeze(-1), 0.0)
        if self.offset is not None and keys.stop - 1 > queries.start + self.offset:
            block = block.tril(queries.start + self.offset - keys.start)
        return block

    def existing(
        self, queries: range, keys: range
    ) -> Float[Tensor, "some_query some_key"] | Float[Tensor, "some_query 1"]:
        """Return 1 at each entry of a block that exists and 0 elsewhere."""
        valid = self.valid[queries.start : queries.stop].to(torch.float32).unsqueeze(-1)
        if self.offset is None or keys.stop - 1 <= queries.start + self.offset:
            return valid
        return valid.expand(-1, len(keys)).tril(queries.start + self.offset - keys.start)


def pattern_map(attention: AttentionOperator) -> HeadMap:
    """Return the plain mean of an operator's heads, over those that see anything at a query.

    Raises:
        FigureError: There is a batch.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> own = pattern_map(DenseAttention(torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])))
        >>> own.block(range(1), range(2)).tolist()
        [[0.75, 0.25]]
    """
    label, bounds = quantity(attention)
    return _mean_over_heads(attention, lambda q, k: attention.tile(q, k), label, bounds)


def gradient_map(attention: AttentionOperator, gradient: AttentionOperator) -> HeadMap:
    """Return the mean over heads of dL/dA, where the attention itself exists."""
    _check_alike(attention, gradient)
    return _mean_over_heads(
        attention, lambda q, k: gradient.tile(q, k), "gradient dL/dA", (None, None)
    )


def saliency_map(attention: AttentionOperator, gradient: AttentionOperator) -> HeadMap:
    """Return the mean over heads of `|A * dL/dA|`: what the target would miss of each entry."""
    _check_alike(attention, gradient)

    def entries(queries: slice, keys: slice) -> Tensor:
        return attention.tile(queries, keys).mul(gradient.tile(queries, keys)).abs()

    return _mean_over_heads(attention, entries, "saliency |A · dL/dA|", (0.0, None))


def difference_map(left: HeadMap, right: HeadMap) -> HeadMap:
    """Return `left - right`, of the positions that both have.

    An entry exists where it exists in either map, so that causal minus bidirectional attention
    shows what the one has behind the other's back; a row exists where both have it.

    Raises:
        FigureError: They show different quantities, or positions of different kinds.
    """
    if left.label != right.label or left.axes != right.axes:
        raise FigureError(
            f"{left.label} by {' and '.join(left.axes)} and {right.label} by "
            f"{' and '.join(right.axes)} have no difference; choose two maps of one kind"
        )
    queries, keys = min(left.queries, right.queries), min(left.keys, right.keys)

    def entries(queries: slice, keys: slice) -> Tensor:
        blocks = (range(queries.start, queries.stop), range(keys.start, keys.stop))
        return left.block(*blocks) - right.block(*blocks)

    return replace(
        left,
        queries=queries,
        keys=keys,
        offset=left.offset if left.offset == right.offset else None,
        valid=left.valid[:queries] & right.valid[:queries],
        entries=entries,
        label=f"difference of {left.label}",
        bounds=(None, None),
        depth=left.depth + right.depth,
    )


def quantity(attention: AttentionOperator) -> tuple[str, Bounds]:
    """Return what an operator's entries are, and between which values they lie."""
    if attention.signed:
        return "signed weight", (None, None)
    if attention.stochastic:
        return "attention (share of the query's row)", (0.0, 1.0)
    return "weight", (0.0, None)


def _mean_over_heads(
    attention: AttentionOperator,
    tile: Callable[[slice, slice], Tensor],
    label: str,
    bounds: Bounds,
) -> HeadMap:
    _, queries, keys = _without_batch(attention)
    valid = attention.valid_queries.reshape(-1, queries).cpu()
    if len(valid) == 1:
        valid = valid.expand(attention.heads, -1)
    share = 1 / valid.sum(0).clamp_min(1)

    def entries(queries: slice, keys: slice) -> Tensor:
        block = tile(queries, keys)
        block = block.reshape(-1, *block.shape[-2:])
        if bool(valid[:, queries].all()):
            return block.mean(0)
        own = valid[:, queries].to(block.device)
        weight = (own * share[queries].to(block.device)).to(block.dtype)
        return torch.einsum("hqk,hq->qk", block, weight)

    return HeadMap(
        queries=queries,
        keys=keys,
        offset=attention.offset if attention.causal else None,
        valid=valid.any(0),
        entries=entries,
        label=label,
        bounds=bounds,
        axes=(attention.query_axis, attention.key_axis),
        depth=attention.heads,
    )


def _without_batch(attention: AttentionOperator) -> tuple[int, int, int]:
    if attention.shape[:-3].numel() != 1:
        raise FigureError(
            f"a map shows one sequence; {attention!r} has the batch axes "
            f"{tuple(attention.shape[:-3])}"
        )
    heads, queries, keys = attention.shape[-3:]
    return heads, queries, keys


def _check_alike(attention: AttentionOperator, gradient: AttentionOperator) -> None:
    if attention.shape != gradient.shape:
        raise FigureError(
            f"the gradient has shape {tuple(gradient.shape)}, the attention "
            f"{tuple(attention.shape)}; give those of the same heads"
        )
