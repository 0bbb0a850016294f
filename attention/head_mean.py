"""`MeanHeadAttention`: the plain mean over an operator's heads."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jaxtyping import Bool, Float
from torch import Size, Tensor

from attnscope.attention.combined import Combined
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, indices

__all__ = ["MeanHeadAttention"]


class MeanHeadAttention(Combined):
    """The plain mean over an operator's heads, as one head."""

    def __init__(self, operator: AttentionOperator) -> None:
        super().__init__([operator])
        self.shape = Size((*operator.shape[:-3], 1, *operator.shape[-2:]))

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist in some head."""
        return self.operands[0].valid_queries.any(-2, keepdim=True)

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch 1 query dim"]:
        """Return the mean of what the heads read."""
        return self.operands[0].apply(values).mean(-3, keepdim=True)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch 1 key dim"]:
        """Return the mean of what the heads' keys receive."""
        shared = weights.expand(*self.shape[:-3], self.operands[0].heads, -1, -1)
        return self.operands[0].apply_transpose(shared).mean(-3, keepdim=True)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch 1 some_query some_key"]:
        """Return the mean tile; the limit counts every head's."""
        return self.operands[0].tile(queries, keys, limit=limit).mean(-3, keepdim=True)

    def select_heads(self, heads: Index) -> "MeanHeadAttention":
        """Return itself: there is one head."""
        indices(heads, 1, "head")
        return self

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "MeanHeadAttention":
        """Return the mean over another operator's heads."""
        return MeanHeadAttention(*operands)

    def parts(self) -> NoReturn:
        """Refuse: the heads are what is worth storing."""
        raise OperatorError(f"{self!r} is a mean over heads; store the operator that has them")

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "MeanHeadAttention":
        """Refuse, as `parts` does."""
        raise OperatorError(f"{cls.__name__} is a mean over heads and is not stored")
