"""`WindowedAttention`: positions are put into windows, and attention stays within each.

Swin, DaViT, HaloNet, blocked and sub-group attention: `apply` is one fused call over all windows,
O(T w) time for windows of `w` keys and O(T) memory; every statistic is that of the inner operator,
carried back to the positions.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.attention.arguments import check_fit
from attnscope.attention.dense import DenseAttention
from attnscope.attention.errors import OperatorError
from attnscope.attention.nesting import nested_parts, operator_from
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.tile import TILE_LIMIT, Index, tile_indices
from attnscope.attention.window_choice import Inner, heads_first, windows_first
from attnscope.attention.window_matrix import matrix_of_windows
from attnscope.attention.window_table import WindowTable

__all__ = ["WindowedAttention"]


class WindowedAttention(AttentionOperator):
    """Attention inside windows: query and key slots of one window see each other, and nobody else.

    A key may stand in many windows (a halo) and more than once in one (a mirrored border): its
    weights add up. A key slot where nobody stands may hold weight, as where zero padding was not
    masked; that share of the row is lost, `row_mass()` says how much is left, and the operator is
    not stochastic.

    Args:
        inner: Attention within the windows, `(*batch, window, head, query_slot, key_slot)`.
        query_index: Query of each slot, `(window, query_slot)`, with the batch axes before it where
            items are cut differently; -1 where nobody stands. A query stands in one slot at most.
        key_index: Key of each slot, in the same form.
        queries: Number of queries.
        keys: Number of keys.
        offset: Key index at the position of query 0; None where there is none.
        query_axis: What a query is: token, patch, memory, probe or channel.
        key_axis: What a key is, in the same words.

    Raises:
        OperatorError: The tables do not fit the inner operator or each other.

    Example:
        >>> pairs = torch.tensor([[0, 2], [1, 3]])  # even positions, odd positions
        >>> inner = SoftmaxAttention(torch.zeros(2, 1, 2, 4), torch.zeros(2, 1, 2, 4), causal=False)
        >>> A = WindowedAttention(inner, pairs, pairs, 4, 4)
        >>> A.rows([1]).tolist(), A.column_mass().tolist()
        ([[[0.0, 0.5, 0.0, 0.5]]], [[1.0, 1.0, 1.0, 1.0]])
    """

    def __init__(  # noqa: PLR0913 - two tables, two lengths, and what the axes are
        self,
        inner: AttentionOperator,
        query_index: Int[Tensor, "*#batch window query_slot"],
        key_index: Int[Tensor, "*#batch window key_slot"],
        queries: int,
        keys: int,
        *,
        offset: int | None = None,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        if not isinstance(inner, SoftmaxAttention | DenseAttention) or len(inner.shape) < 4:
            raise OperatorError(
                f"inner is {inner!r} of shape {tuple(inner.shape)}; it takes a SoftmaxAttention or "
                "a DenseAttention of shape (*batch, window, head, query_slot, key_slot)"
            )
        batch = inner.shape[:-4]
        self.inner, self.query_index, self.key_index = inner, query_index, key_index
        self._queries = WindowTable(query_index, queries, batch)
        self._keys = WindowTable(key_index, keys, batch)
        _check_tables(inner, self._queries, self._keys)
        self.shape = torch.Size((*batch, inner.shape[-3], queries, keys))
        self.dtype, self.device, self.signed = inner.dtype, inner.device, inner.signed
        self.offset, self.query_axis, self.key_axis = offset, query_axis, key_axis
        self.causal = offset is not None and _is_causal(query_index, key_index, offset)

    @cached_property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] - on demand
        """Whether every valid row is a distribution: none loses a share to slots without a key."""
        return self.inner.stochastic and not self._loses

    @cached_property
    def _loses(self) -> bool:
        """Whether a slot without a key holds weight; it takes a fused call to know."""
        if not self._keys.has_empty:
            return False
        inner = self.inner
        empty = (self._keys.index < 0).to(self.dtype)[..., None, :, None]
        with torch.no_grad():
            lost = inner.apply(empty.expand(*inner.shape[:-3], 1, -1, 1)).squeeze(-1)
        return bool((lost.ne(0) & (self._queries.index >= 0).unsqueeze(-2)).any())

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which queries stand in a window in which they see a key."""
        seeing = self.inner.valid_queries & (self._keys.index >= 0).any(-1)[..., None, None]
        return self._carried(seeing.to(self.dtype)) > 0

    def apply(
        self, values: Float[Tensor, "*batch value_head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `A V`, one fused call over all windows; heads may share values."""
        check_fit("values", values, self, "key")
        return self._queries.scatter(self.inner.apply(self._keys.gather(values)))

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U`: what each key receives, summed over the slots in which it stands."""
        check_fit("weights", weights, self, "query")
        return self._keys.scatter(self.inner.apply_transpose(self._queries.gather(weights)))

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return a tile from those slots of those windows that hold a part of it."""
        chosen = tile_indices(self.shape, queries, keys, limit=limit)
        rows, row_of = chosen[0].to(self.device).unique(return_inverse=True)
        columns, column_of = chosen[1].to(self.device).unique(return_inverse=True)
        width = len(columns)
        tables = self._queries.places_among(rows), self._keys.places_among(columns)
        entries = matrix_of_windows(
            self.inner, tables, (len(rows), width), lambda row, column: row * width + column
        )
        return entries.index_select(-2, row_of).index_select(-1, column_of)

    def band(self, width: int) -> Float[Tensor, "*batch head query {width}"]:
        """Return the band from the windows' own entries, O(T w) whatever its width."""
        offset = self._require_offset("band")
        if width < 1:
            raise OperatorError(f"band width is {width}; it counts diagonals and starts at 1")

        def place(query: Tensor, key: Tensor) -> Tensor:
            distance = query + offset - key
            inside = (distance >= 0) & (distance < width)
            return torch.where(inside, query * width + distance, -1)

        tables = self._queries.by_item, self._keys.by_item
        return matrix_of_windows(self.inner, tables, (self.queries, width), place)

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the sum of each row: what slots without a key leave of it."""
        return super().row_mass() if self._keys.has_empty else self._carried(self.inner.row_mass())

    def entropy(self) -> Float[Tensor, "*batch head query"]:
        """Return the inner rows' entropy; a key that a window holds twice counts once.

        Raises:
            OperatorError: Rows are not distributions; `normalized()` makes them so.
        """
        if not self.stochastic or self._keys.has_repeats:
            return super().entropy()
        return self._carried(self.inner.entropy()).masked_fill(~self.valid_queries, torch.nan)

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return the inner rows' power sum over keys; slots without a key do not count.

        Raises:
            OperatorError: The operator is signed or the exponent is not positive.
        """
        slots_are_keys = not (self.signed or self._keys.has_repeats or self._loses)
        if exponent > 0 and slots_are_keys:
            return self._carried(self.inner.power_sum(exponent))
        return super().power_sum(exponent)

    def log_normalizer(self) -> Float[Tensor, "*batch head query"]:
        """Return the inner softmax's `lse`, slots without a key included; -inf without a row."""
        normalizer = self._carried(self.inner.log_normalizer())
        return normalizer.masked_fill(~self._queries.present, -torch.inf)

    def select_heads(self, heads: Index) -> "WindowedAttention":
        """Return the operator of some heads; the windows are every head's."""
        return self._rebuilt(self.inner.select_heads(heads), self.query_index, self.key_index)

    def item(self, index: int) -> "WindowedAttention":
        """Return one item of the batch, cut from the graph, with its own windows."""
        self._require_batch()
        tables = (self.query_index, self.key_index)
        own = (table[index] if table.ndim > 2 else table for table in tables)
        return self._rebuilt(self.inner.item(index), *own)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the inner operator's parts, heads before windows, and the two tables."""
        tensors, facts = nested_parts("inner", self.inner)
        tensors = heads_first(tensors)
        tensors |= {"query_index": self.query_index, "key_index": self.key_index}
        return tensors, facts | {"queries": self.queries, "keys": self.keys} | self._labels()

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "WindowedAttention":
        """Return the operator of stored windows."""
        tables = tensors["query_index"], tensors["key_index"]
        slots = tables[0].shape[-1], tables[1].shape[-1]
        inner = operator_from("inner", windows_first(tensors, *slots), facts)
        named = {name: fact for name, fact in facts.items() if name != "inner"}
        return cls(inner, *tables, **named)

    def __repr__(self) -> str:
        """Return the sizes of the whole and of the windows."""
        windows, _, query_slots, key_slots = self.inner.shape[-4:]
        return f"{super().__repr__()[:-1]}, {windows} windows of {query_slots} x {key_slots})"

    def _labels(self) -> dict[str, Any]:
        return {"offset": self.offset, "query_axis": self.query_axis, "key_axis": self.key_axis}

    def _rebuilt(
        self, inner: AttentionOperator, query_index: Tensor, key_index: Tensor
    ) -> "WindowedAttention":
        return WindowedAttention(
            inner, query_index, key_index, self.queries, self.keys, **self._labels()
        )

    def _carried(self, rows: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return one number per query from one per window and slot, 0 for who stands nowhere."""
        return self._queries.scatter(rows.unsqueeze(-1)).squeeze(-1)

    def _rowwise(
        self, function: Callable[[Tensor], Tensor], undefined: float = 0.0
    ) -> Float[Tensor, "*batch head query"]:
        pieces = [function(self._merged(block)) for _, block in self.inner.blocks()]
        return self._carried(torch.cat(pieces, dim=-1)).masked_fill(~self.valid_queries, undefined)

    def _merged(self, block: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return rows of windows in which each key has one slot and empty slots hold nothing."""
        block = block.masked_fill((self._keys.index < 0)[..., None, None, :], 0.0)
        first = self._keys.first_slots().expand_as(block)
        return torch.zeros_like(block).scatter_add(-1, first, block)


def _check_tables(inner: Inner, queries: WindowTable, keys: WindowTable) -> None:
    """Refuse tables that do not fit the inner operator, and a query that stands twice."""
    windows, _, query_slots, key_slots = inner.shape[-4:]
    given = (queries.windows, queries.slots), (keys.windows, keys.slots)
    if given != ((windows, query_slots), (windows, key_slots)):
        raise OperatorError(
            f"the tables have (window, slot) {given[0]} and {given[1]}; "
            f"{inner!r} has {windows} windows of {query_slots} queries and {key_slots} keys"
        )
    if not queries.is_partition:
        raise OperatorError("a query stands in two slots; each has one row and stands in one")


def _is_causal(positions: Tensor, key_index: Tensor, offset: int) -> bool:
    """Return whether no window holds a key ahead of one of its queries."""
    nearest = torch.where(positions < 0, torch.iinfo(positions.dtype).max, positions + offset)
    return bool((key_index.amax(-1) <= nearest.amin(-1)).all())
