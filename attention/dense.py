"""`DenseAttention`: a stored map, and the brute-force oracle of every other operator."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, alike, indices, tile_indices

__all__ = ["DenseAttention"]

_ROW_SUM_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


class DenseAttention(AttentionOperator):
    """Attention given by its matrix.

    What it says of itself (`stochastic`, `signed`, `causal`) is read from the numbers, so a map
    that is not what its source claims is noticed.

    Args:
        pattern: The map after softmax, `(*batch, head, query, key)`.
        offset: Key index at the position of query 0; None where there is none.
            By default the last query stands at the last key.
        query_axis: What a query is: token, patch, memory, probe or channel.
        key_axis: What a key is, in the same words.

    Example:
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]))
        >>> A.apply(torch.tensor([[[0.0], [4.0]]])).flatten().tolist()
        [0.0, 3.0]
        >>> A.causal, A.stochastic, A.column_mass().tolist()
        (True, True, [[1.25, 0.75]])
    """

    def __init__(
        self,
        pattern: Float[Tensor, "*batch head query key"],
        *,
        offset: int | str | None = "end",
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        if pattern.ndim < 3:
            raise OperatorError(
                f"pattern has shape {tuple(pattern.shape)}; "
                "it needs at least the axes (head, query, key)"
            )
        self.pattern = pattern
        self.shape, self.dtype, self.device = pattern.shape, pattern.dtype, pattern.device
        self.query_axis, self.key_axis = query_axis, key_axis
        if isinstance(offset, str):
            same = query_axis == key_axis
            offset = pattern.shape[-1] - pattern.shape[-2] if same else None
        self.offset = offset
        facts = pattern.detach()
        self.signed = bool((facts < 0).any())
        row_sums = facts.sum(-1, dtype=torch.promote_types(facts.dtype, torch.float32))
        tolerance = _ROW_SUM_TOLERANCE.get(pattern.dtype, 2e-2)
        empty = (facts == 0).all(-1)
        self.stochastic = not self.signed and bool(
            (((row_sums - 1).abs() <= tolerance) | empty).all()
        )
        self.causal = offset is not None and not bool(facts.triu(offset + 1).any())
        self._valid = ~empty.all(-2, keepdim=True) if self.stochastic else None

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows hold anything at all."""
        return super().valid_queries if self._valid is None else self._valid

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the product of the matrix with the values."""
        pattern, values = alike(self.pattern, values)
        return pattern @ values

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return the product of the transposed matrix with the weights."""
        pattern, weights = alike(self.pattern, weights)
        return pattern.mT @ weights

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return stored entries; `limit` bounds what is copied."""
        chosen_queries, chosen_keys = tile_indices(self.shape, queries, keys, limit=limit)
        chosen_queries, chosen_keys = chosen_queries.to(self.device), chosen_keys.to(self.device)
        return self.pattern.index_select(-2, chosen_queries).index_select(-1, chosen_keys)

    def select_heads(self, heads: Index) -> "DenseAttention":
        """Return the maps of some heads."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        return DenseAttention(
            self.pattern.index_select(-3, chosen),
            offset=self.offset,
            query_axis=self.query_axis,
            key_axis=self.key_axis,
        )

    def item(self, index: int) -> "DenseAttention":
        """Return the map of one item of the batch."""
        self._require_batch()
        return DenseAttention(
            self.pattern[index].detach(),
            offset=self.offset,
            query_axis=self.query_axis,
            key_axis=self.key_axis,
        )

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the matrix and what its axes are."""
        facts = {"offset": self.offset, "query_axis": self.query_axis, "key_axis": self.key_axis}
        return {"pattern": self.pattern}, facts

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "DenseAttention":
        """Return the operator of a stored matrix."""
        return cls(tensors["pattern"], **facts)
