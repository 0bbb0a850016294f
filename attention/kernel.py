"""`KernelAttention`: linear attention by its features, at O(T dim) memory in both directions."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.causal_product import causal_product
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, indices, tile_indices

__all__ = ["KernelAttention"]


class KernelAttention(AttentionOperator):
    """`A_tj = q_t . k_j / n_t` of features that are already mapped, `n_t = sum_j q_t . k_j` or 1.

    A constant or another kernel is one more feature: rows that are shifted by `1 / keys` (InLine)
    have a last feature of 1 for the queries and of `1 / keys` for the keys.

    Args:
        query: The queries' features, `(*batch, head, query, dim)`.
        key: The keys' features, `(*batch, head, key, dim)`.
        causal: Query `t` sees the keys up to `t + offset`, and its sum runs over these.
        normalize: Whether rows are divided by their sum. A row whose sum is 0 is empty.
        signed: Whether products of features may be negative; by default they may if any feature is.
        offset: Key index at the position of query 0; None where there is none.
        query_axis: What a query is: token, patch, memory, probe or channel.
        key_axis: What a key is.

    Raises:
        OperatorError: The features do not fit each other, or a causal operator has no offset.

    Reference:
        Katharopoulos et al. 2020, arXiv:2006.16236, equations 4, 5 and 9.

    Example:
        >>> query, key = torch.tensor([[[2.0], [5.0]]]), torch.tensor([[[3.0], [1.0]]])
        >>> KernelAttention(query, key).dense().tolist()  # a positive factor of a query cancels
        [[[0.75, 0.25], [0.75, 0.25]]]
        >>> KernelAttention(query, key, causal=True).dense().tolist()
        [[[1.0, 0.0], [0.75, 0.25]]]
    """

    def __init__(  # noqa: PLR0913 - each argument changes the mathematics
        self,
        query: Float[Tensor, "*batch head query dim"],
        key: Float[Tensor, "*batch head key dim"],
        *,
        causal: bool = False,
        normalize: bool = True,
        signed: bool | None = None,
        offset: int | None = 0,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        if query.ndim < 3 or query.shape[:-2] != key.shape[:-2] or query.shape[-1] != key.shape[-1]:
            raise OperatorError(
                f"query {tuple(query.shape)} and key {tuple(key.shape)} do not fit; they need the "
                "shapes (*batch, head, query, dim) and (*batch, head, key, dim)"
            )
        self.query, self.key = query, key
        self.shape = torch.Size((*query.shape[:-1], key.shape[-2]))
        self.dtype = torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)
        self.device = query.device
        self.causal, self.normalize = causal, normalize
        self.offset, self.query_axis, self.key_axis = offset, query_axis, key_axis
        if causal:
            self._require_offset("causal attention")
        least = [factor.detach().amin() for factor in (query, key) if factor.numel()]
        self.signed = any(bool(low < 0) for low in least) if signed is None else signed
        self.stochastic = normalize and not self.signed

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows have a sum to be divided by (all, where they are not)."""
        return self._row_sum() != 0 if self.normalize else super().valid_queries

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `Q (K^T V) / n`: the keys first, so that no map is built."""
        return self._share(self._product(values))

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `K (Q^T (U / n))`."""
        query, key = self._factors(weights.dtype)
        weights = self._share(weights.to(query.dtype))
        if not self.causal:
            return key @ (query.mT @ weights)
        # Seen backwards in time, a key reads the queries up to its own position.
        backwards = [factor.flip(-2) for factor in (key, query, weights)]
        offset = self.queries - self.keys + (self.offset or 0)
        return causal_product(*backwards, offset=offset).flip(-2)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return products of the chosen features, divided by the chosen rows' sums."""
        chosen = tile_indices(self.shape, queries, keys, limit=limit)
        rows, columns = chosen[0].to(self.device), chosen[1].to(self.device)
        query, key = self._factors()
        products = query.index_select(-2, rows) @ key.index_select(-2, columns).mT
        if self.causal:
            hidden = columns > rows[:, None] + (self.offset or 0)
            products = products.masked_fill(hidden, 0.0)
        return self._share(products, rows)

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j A_tj^p`; for `p = 2` as `q_t . (A K)_t / n_t`, without any map."""
        if self.signed or exponent != 2:
            return super().power_sum(exponent)
        query, key = self._factors()
        return self._share((query * self.apply(key)).sum(-1, keepdim=True)).squeeze(-1)

    def select_heads(self, heads: Index) -> "KernelAttention":
        """Return the features of some heads."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        query, key = self.query.index_select(-3, chosen), self.key.index_select(-3, chosen)
        return KernelAttention(query, key, **self._facts())

    def item(self, index: int) -> "KernelAttention":
        """Return one item of the batch, cut from the graph."""
        self._require_batch()
        query, key = self.query[index].detach(), self.key[index].detach()
        return KernelAttention(query, key, **self._facts())

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the features and how they are divided."""
        return {"query": self.query, "key": self.key}, self._facts()

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "KernelAttention":
        """Return the operator of stored features."""
        return cls(tensors["query"], tensors["key"], **facts)

    def _facts(self) -> dict[str, Any]:
        names = ("causal", "normalize", "signed", "offset", "query_axis", "key_axis")
        return {name: getattr(self, name) for name in names}

    def _factors(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        wide = self.dtype if dtype is None else torch.promote_types(self.dtype, dtype)
        return self.query.to(wide), self.key.to(wide)

    def _product(self, values: Tensor) -> Tensor:
        """Return `Q (K^T V)`, over the visible keys, before any division."""
        query, key = self._factors(values.dtype)
        values = values.to(query.dtype)
        if self.causal:
            return causal_product(query, key, values, self.offset or 0)
        return query @ (key.mT @ values)

    def _row_sum(self) -> Float[Tensor, "*batch head query"]:
        ones = torch.ones(*self.shape[:-3], 1, self.keys, 1, dtype=self.dtype, device=self.device)
        return self._product(ones).squeeze(-1)

    def _share(self, rows: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return (chosen) rows divided by their sums, where this operator does so."""
        if not self.normalize:
            return rows
        total = self._row_sum() if chosen is None else self._row_sum().index_select(-1, chosen)
        empty = total == 0
        share = total.masked_fill(empty, 1.0).reciprocal().masked_fill(empty, 0.0)
        return rows * share.unsqueeze(-1)
