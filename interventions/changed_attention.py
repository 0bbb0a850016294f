"""`ChangedAttention`: the operator that an intervention leaves behind, built only if asked for.

A change works on outputs, one row at a time while a model generates. What operator that amounts to
matters to the next change and to a recorder, and to nobody else: so it is put off.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention import (
    TILE_LIMIT,
    AttentionOperator,
    DenseAttention,
    GroupedAttention,
    IndexedAttention,
    RowScaledAttention,
    SumAttention,
)

__all__ = ["ChangedAttention", "choice_of_rows", "sparse_rows"]


class ChangedAttention(AttentionOperator):
    """An operator of the shape of another, made when it is first used.

    Args:
        before: The operator that was changed.
        make: Makes the changed one.
        stochastic: Whether its rows are distributions.
    """

    def __init__(
        self,
        before: AttentionOperator,
        make: Callable[[], AttentionOperator],
        *,
        stochastic: bool,
    ) -> None:
        self.shape, self.dtype, self.device = before.shape, before.dtype, before.device
        self.stochastic, self.signed, self.causal = stochastic, before.signed, before.causal
        self.offset, self.query_axis, self.key_axis = (
            before.offset,
            before.query_axis,
            before.key_axis,
        )
        self._make, self._made = make, None

    @property
    def made(self) -> AttentionOperator:
        """Return the changed operator."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist after the change."""
        return self.made.valid_queries

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return what each query reads after the change."""
        return self.made.apply(values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return what each key receives after the change."""
        return self.made.apply_transpose(weights)

    def tile(
        self, queries: Any, keys: Any, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return entries after the change."""
        return self.made.tile(queries, keys, limit=limit)

    def select_heads(self, heads: Any) -> AttentionOperator:
        """Return some heads of the changed operator."""
        return self.made.select_heads(heads)

    def item(
        self, index: int, *, query_axis: str | None = None, key_axis: str | None = None
    ) -> AttentionOperator:
        """Return one item of the batch, with the axes named if that is asked for."""
        own = self.made.item(index)
        _name_axes(own, query_axis or self.query_axis, key_axis or self.key_axis)
        return own

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the parts of the changed operator, whose own kind builds them again."""
        return self.made.parts()

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> AttentionOperator:
        """Refuse: what a file holds is an `item`, which is of the changed operator's own kind."""
        raise NotImplementedError("items of a changed operator are stored, of their own kind")


def choice_of_rows(
    before: AttentionOperator,
    after: AttentionOperator,
    chosen: Bool[Tensor, "*batch #head query"],
    *,
    stochastic: bool,
) -> SumAttention:
    """Return the operator with the chosen rows of `after`, and the others of `before`.

    Example:
        >>> before = DenseAttention(torch.eye(2)[None])
        >>> after = DenseAttention(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
        >>> chosen = torch.tensor([[False, True]])
        >>> choice_of_rows(before, after, chosen, stochastic=True).dense().tolist()
        [[[1.0, 0.0], [0.5, 0.5]]]
    """
    mine = chosen.expand(before.shape[:-1]).to(before.dtype)
    kept = RowScaledAttention(before, 1 - mine)
    return SumAttention((kept, RowScaledAttention(after, mine)), stochastic=stochastic)


def sparse_rows(
    rows: Float[Tensor, "*batch head row key"], queries: list[int], count: int
) -> GroupedAttention:
    """Return the operator of `count` queries of which only some have a row.

    Example:
        >>> sparse_rows(torch.tensor([[[0.25, 0.75]]]), [2], 3).dense().tolist()
        [[[0.0, 0.0], [0.0, 0.0], [0.25, 0.75]]]
    """
    *lead, _, _ = rows.shape
    index = torch.full((count, 1), -1, device=rows.device)
    index[queries, 0] = torch.arange(len(queries), device=rows.device)
    weights = (index >= 0).to(rows.dtype).expand(*lead, count, 1)
    read = IndexedAttention(weights, index, len(queries), offset=None)
    spread = DenseAttention(rows, offset=None)
    return GroupedAttention(read, spread, offset=rows.shape[-1] - count)


def _name_axes(operator: AttentionOperator, query_axis: str, key_axis: str) -> None:
    """Say what queries and keys are, in an operator that was just made and in all it is made of."""
    for part in getattr(operator, "operands", ()):
        _name_axes(part, query_axis, key_axis)
    operator.query_axis, operator.key_axis = query_axis, key_axis
    if query_axis != key_axis:
        operator.offset = None
