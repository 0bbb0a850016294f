"""`IndexedAttention`: attention over a table of keys per query (neighborhoods, routing, halos).

Everything costs O(T w) time and memory for `w` slots per query; nothing of size T x T is built.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.attention.arguments import check_fit
from attnscope.attention.errors import OperatorError
from attnscope.attention.gathering import Table, gather_dot, gather_sum, scatter_sum
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.row_entropy import entropy_of
from attnscope.attention.tile import TILE_LIMIT, Index, alike, indices, tile_indices

__all__ = ["IndexedAttention", "indexed_scores"]

_ROW_SUM_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def indexed_scores(
    query: Float[Tensor, "*batch head query dim"],
    key: Float[Tensor, "*batch kv_head key dim"],
    index: Int[Tensor, "*tables query slot"],
) -> Float[Tensor, "*batch head query slot"]:
    """Return `q_t . k_j` for the key `j` in each slot of query `t`, `-inf` where a slot is empty.

    Softmax over slots then gives an empty slot the weight 0. Memory is O(T w), for gradients too:
    the gathered keys `(query, slot, dim)` are never built.

    Args:
        query: Queries; scale them beforehand.
        key: Keys, with fewer heads where heads share them.
        index: Key of each slot, -1 where it is empty: `(query, slot)` or with leading axes that
            broadcast to those of the queries.

    Raises:
        OperatorError: The shapes do not fit, or the index names a key that is not there.

    Example:
        >>> query, key = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [5.0]]])
        >>> indexed_scores(query, key, torch.tensor([[0, 1], [1, -1]])).tolist()
        [[[3.0, 5.0], [10.0, -inf]]]
    """
    fits = query.shape[:-3] == key.shape[:-3] and query.shape[-1] == key.shape[-1]
    if query.ndim < 3 or not fits or query.shape[-3] % max(1, key.shape[-3]):
        raise OperatorError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} do not fit; they need the "
            "shapes (*batch, head, query, dim) and (*batch, kv_head, key, dim)"
        )
    _check_index(index, query.shape[:-1], key.shape[-2])
    query, key = alike(query, key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3))
    table = Table.of(index, query.shape[:-2], key.shape[-2])
    scores = gather_dot(query.flatten(0, -3), key.flatten(0, -3), table)
    scores = scores.reshape(*query.shape[:-1], index.shape[-1])
    return scores.masked_fill(index < 0, -torch.inf) if table.holes else scores


class IndexedAttention(AttentionOperator):
    """`A_tj`: the sum of the weights of the slots of query `t` in which key `j` stands.

    What it says of itself (`stochastic`, `signed`) is read from the weights, `causal` from the
    table. One key may stand in several slots of a row: its weights add up, and entropy and power
    sums see the key once.

    Args:
        weights: Weight of each slot after softmax, `(*batch, head, query, slot)`; 0 in empty slots.
        index: Key of each slot, -1 where it is empty: `(query, slot)` or with leading axes
            `(*batch, head)` of which each may be 1.
        keys: How many keys there are.
        offset: Key index at the position of query 0; None where there is none.
        query_axis: What a query is: token, patch, memory, probe or channel.
        key_axis: What a key is, in the same words.

    Raises:
        OperatorError: The shapes do not fit, the index names a key that is not there, or an empty
            slot has a weight.

    Example:
        >>> A = IndexedAttention(torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]),
        ...                      torch.tensor([[0, -1], [0, 1]]), 2, offset=0)
        >>> A.dense().tolist(), A.causal, A.stochastic
        ([[[1.0, 0.0], [0.25, 0.75]]], True, True)
    """

    def __init__(
        self,
        weights: Float[Tensor, "*batch head query slot"],
        index: Int[Tensor, "*tables query slot"],
        keys: int,
        *,
        offset: int | None = None,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        if weights.ndim < 3 or weights.shape[-1] != index.shape[-1]:
            raise OperatorError(
                f"weights {tuple(weights.shape)} and index {tuple(index.shape)} do not fit; they "
                "need the shapes (*batch, head, query, slot) and (query, slot)"
            )
        _check_index(index, weights.shape[:-1], keys)
        self.weights, self.index = weights, index.long()
        self.shape = torch.Size((*weights.shape[:-1], keys))
        self.dtype, self.device = torch.promote_types(weights.dtype, torch.float32), weights.device
        self.offset, self.query_axis, self.key_axis = offset, query_axis, key_axis
        self._table = Table.of(self.index, weights.shape[:-2], keys)
        facts = weights.detach()
        if self._table.holes and bool(facts.masked_fill(self.index >= 0, 0).any()):
            raise OperatorError("an empty slot (index -1) has a weight; it must be 0 there")
        self.signed = bool(facts.numel()) and bool(facts.amin() < 0)
        sums = facts.sum(-1, dtype=self.dtype)
        near = (sums - 1).abs() <= _ROW_SUM_TOLERANCE.get(weights.dtype, 2e-2)
        self.stochastic = not self.signed and bool((near | ~self._filled_rows).all())
        self.causal = offset is not None and not bool((self.index > self._positions(offset)).any())

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which queries have a key in some slot."""
        filled = self._filled_rows
        lead = (*self.shape[:-3], filled.shape[-2] if filled.ndim > 1 else 1)
        return filled.expand(*lead, self.queries)

    def apply(
        self, values: Float[Tensor, "*batch value_head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the weighted sum of each query's slots; heads may share values."""
        check_fit("values", values, self, "key")
        values = values.repeat_interleave(self.heads // values.shape[-3], dim=-3)
        weights, values = alike(self.weights, values)
        read = gather_sum(weights.flatten(0, -3), values.flatten(0, -3), self._table)
        return read.reshape(*self.shape[:-1], values.shape[-1])

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return what each key receives from the queries in whose slots it stands."""
        check_fit("weights", weights, self, "query")
        own, given = alike(self.weights, weights.expand(*self.shape[:-2], -1, -1))
        received = scatter_sum(own.flatten(0, -3), given.flatten(0, -3), self._table)
        return received.reshape(*self.shape[:-2], self.keys, weights.shape[-1])

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the chosen queries' slots laid out over the chosen keys."""
        chosen_queries, chosen_keys = tile_indices(self.shape, queries, keys, limit=limit)
        chosen_queries, chosen_keys = chosen_queries.to(self.device), chosen_keys.to(self.device)
        distinct, places = chosen_keys.unique(return_inverse=True)
        column = torch.full((self.keys + 1,), len(distinct), device=self.device)
        column[distinct] = torch.arange(len(distinct), device=self.device)
        index = self.index.index_select(-2, chosen_queries)
        weights = self.weights.index_select(-2, chosen_queries)
        return self._laid_out(weights, column[index], len(distinct)).index_select(-1, places)

    def band(self, width: int) -> Float[Tensor, "*batch head query {width}"]:
        """Return the diagonal band `A[t, t - d]`, O(T (w + width))."""
        offset = self._require_offset("band")
        if width < 1:
            raise OperatorError(f"band width is {width}; it counts diagonals and starts at 1")
        distance = self._positions(offset) - self.index
        outside = (distance < 0) | (distance >= width) | (self.index < 0)
        return self._laid_out(self.weights, distance.masked_fill(outside, width), width)

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the sum of each row's slots."""
        return self.weights.sum(-1, dtype=self.dtype)

    def entropy(self) -> Float[Tensor, "*batch head query"]:
        """Return the entropy of each row over its distinct keys, in nats, O(T w)."""
        self._require_stochastic("entropy")
        return entropy_of(self._distinct()).masked_fill(~self.valid_queries, torch.nan)

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j A_tj^p` over each row's distinct keys, O(T w)."""
        if self.signed or exponent <= 0:
            return super().power_sum(exponent)
        return self._distinct().pow(exponent).sum(-1)

    def absolute_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j |A_tj|` over each row's distinct keys, O(T w)."""
        return self._distinct().abs().sum(-1) if self.signed else self.row_mass()

    def normalized(self) -> AttentionOperator:
        """Return the operator whose rows are divided by their sum (itself where they sum to 1)."""
        if self.stochastic or self.signed:
            return super().normalized()
        mass = self.row_mass().unsqueeze(-1)
        return self._rebuilt(weights=torch.where(mass > 0, self.weights / mass, 0))

    def select_heads(self, heads: Index) -> "IndexedAttention":
        """Return the slots of some heads."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        own = self.index.ndim > 2 and self.index.shape[-3] > 1
        index = self.index.index_select(-3, chosen) if own else self.index
        return self._rebuilt(weights=self.weights.index_select(-3, chosen), index=index)

    def item(self, index: int) -> "IndexedAttention":
        """Return one item of the first batch axis, cut from the graph."""
        self._require_batch()
        table = self.index
        if table.ndim == self.weights.ndim:
            table = table[index if len(table) > 1 else 0]
        return self._rebuilt(weights=self.weights[index].detach(), index=table)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return weights and table (without leading axes where all heads share it)."""
        tensors = {"weights": self.weights, "index": self.index}
        if self.index.shape[:-2].numel() == 1:
            tensors["index"] = self.index.reshape(self.index.shape[-2:])
        names = ("keys", "offset", "query_axis", "key_axis")
        return tensors, {name: getattr(self, name) for name in names}

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "IndexedAttention":
        """Return the operator of stored weights and their table."""
        return cls(tensors["weights"], tensors["index"], **facts)

    @cached_property
    def _filled_rows(self) -> Tensor:
        return (self.index >= 0).any(-1)

    def _positions(self, offset: int) -> Tensor:
        return torch.arange(offset, offset + self.queries, device=self.device).unsqueeze(-1)

    def _laid_out(self, weights: Tensor, column: Tensor, columns: int) -> Tensor:
        """Return weights added up in their columns; the last column collects what is left out."""
        output = weights.new_zeros((*weights.shape[:-1], columns + 1), dtype=self.dtype)
        weights = weights.to(self.dtype)
        return output.scatter_add(-1, column.expand(weights.shape), weights)[..., :columns]

    def _distinct(self) -> Float[Tensor, "*batch head query slot"]:
        """Return weights in which the slots of one key are added up in one of them."""
        ordered, order = self.index.sort(-1)
        again = ordered.diff(dim=-1) == 0
        if not bool((again & (ordered[..., 1:] >= 0)).any()):
            return self.weights.to(self.dtype)
        run = torch.nn.functional.pad((~again).long().cumsum(-1), (1, 0))
        weights = self.weights.gather(-1, order.expand(self.weights.shape))
        return self._laid_out(weights, run, self.index.shape[-1])

    def _rebuilt(self, **changes: Any) -> "IndexedAttention":
        names = ("weights", "index", "keys", "offset", "query_axis", "key_axis")
        return IndexedAttention(**({name: getattr(self, name) for name in names} | changes))


def _check_index(index: Tensor, rows: torch.Size, keys: int) -> None:
    """Refuse a table that does not fit the rows of the heads, or that names a key that is not."""
    lead, own = rows[:-1], index.shape[:-2]
    aligned = zip(reversed(own), reversed(lead), strict=False)
    if len(own) > len(lead) or any(size not in (1, full) for size, full in aligned):
        raise OperatorError(
            f"index {tuple(index.shape)} does not fit {tuple(lead)} (*batch, head); it needs the "
            "axes (query, slot), with leading axes that broadcast to those"
        )
    if index.shape[-2] != rows[-1]:
        raise OperatorError(f"index has {index.shape[-2]} rows for {rows[-1]} queries")
    low, high = (int(bound) for bound in index.aminmax()) if index.numel() else (0, keys - 1)
    if low < -1 or high >= keys:
        raise OperatorError(
            f"index holds {low} to {high}; there are {keys} keys, from 0 to {keys - 1}, "
            "and -1 means an empty slot"
        )
