"""`RowScaledAttention`: an operator whose rows are multiplied by one number each."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.combined import Combined
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, indices

__all__ = ["RowScaledAttention"]


class RowScaledAttention(Combined):
    """An operator whose rows are multiplied by one number each."""

    def __init__(
        self,
        operator: AttentionOperator,
        factors: Float[Tensor, "*batch head query"],
        *,
        stochastic: bool = False,
    ) -> None:
        super().__init__([operator])
        self.factors, self.stochastic = factors, stochastic
        self.signed = operator.signed or bool((factors < 0).any())

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist and were not scaled away."""
        return self.operands[0].valid_queries & (self.factors != 0)

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the scaled rows' reading."""
        return self.operands[0].apply(values) * self.factors.unsqueeze(-1)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return what the keys receive from scaled rows."""
        return self.operands[0].apply_transpose(weights * self.factors.unsqueeze(-1))

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the scaled rows of the operator's tile."""
        chosen = indices(queries, self.queries, "query").to(self.device)
        return self.operands[0].tile(queries, keys, limit=limit) * self.factors.index_select(
            -1, chosen
        ).unsqueeze(-1)

    def select_heads(self, heads: Index) -> "RowScaledAttention":
        """Return the chosen heads with their factors."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        factors = self.factors.index_select(-2, chosen)
        return RowScaledAttention(
            self.operands[0].select_heads(heads), factors, stochastic=self.stochastic
        )

    def item(self, index: int) -> "RowScaledAttention":
        """Return one item of the batch with its factors."""
        own = self.operands[0].item(index)
        factors = self.factors.expand(self.shape[:-1])[index].detach()
        return RowScaledAttention(own, factors, stochastic=self.stochastic)

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "RowScaledAttention":
        """Return another operator with the same factors."""
        return RowScaledAttention(operands[0], self.factors, stochastic=self.stochastic)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the operator's parts and the factors."""
        tensors, facts = super().parts()
        return tensors | {"factors": self.factors}, facts | {"stochastic": self.stochastic}

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "RowScaledAttention":
        """Return a stored operator with its rows' factors."""
        operands = cls.stored_operands(tensors, facts)
        return cls(operands[0], tensors["factors"], stochastic=facts["stochastic"])
