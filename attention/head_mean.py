"""`MeanHeadAttention`: the plain mean over an operator's heads."""

from jaxtyping import Bool, Float
from torch import Size, Tensor

from attnscope.attention.algebra import Combined
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, indices

__all__ = ["MeanHeadAttention"]


class MeanHeadAttention(Combined):
    """The plain mean over an operator's heads, as one head."""

    def __init__(self, operator: AttentionOperator) -> None:
        super().__init__(operator)
        self.operator = operator
        self.shape = Size((*operator.shape[:-3], 1, *operator.shape[-2:]))

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist in some head."""
        return self.operator.valid_queries.any(-2, keepdim=True)

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch 1 query dim"]:
        """Return the mean of what the heads read."""
        return self.operator.apply(values).mean(-3, keepdim=True)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch 1 key dim"]:
        """Return the mean of what the heads' keys receive."""
        shared = weights.expand(*self.shape[:-3], self.operator.heads, -1, -1)
        return self.operator.apply_transpose(shared).mean(-3, keepdim=True)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch 1 some_query some_key"]:
        """Return the mean tile; the limit counts every head's."""
        return self.operator.tile(queries, keys, limit=limit).mean(-3, keepdim=True)

    def select_heads(self, heads: Index) -> "MeanHeadAttention":
        """Return itself: there is one head."""
        indices(heads, 1, "head")
        return self
