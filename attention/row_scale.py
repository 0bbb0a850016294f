"""`RowScaledAttention`: an operator whose rows are multiplied by one number each."""

from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.algebra import Combined
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
        super().__init__(operator)
        self.operator, self.factors, self.stochastic = operator, factors, stochastic
        self.signed = operator.signed or bool((factors < 0).any())

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist and were not scaled away."""
        return self.operator.valid_queries & (self.factors != 0)

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the scaled rows' reading."""
        return self.operator.apply(values) * self.factors.unsqueeze(-1)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return what the keys receive from scaled rows."""
        return self.operator.apply_transpose(weights * self.factors.unsqueeze(-1))

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the scaled rows of the operator's tile."""
        chosen = indices(queries, self.queries, "query").to(self.device)
        return self.operator.tile(queries, keys, limit=limit) * self.factors.index_select(
            -1, chosen
        ).unsqueeze(-1)

    def select_heads(self, heads: Index) -> "RowScaledAttention":
        """Return the chosen heads with their factors."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        factors = self.factors.index_select(-2, chosen)
        return RowScaledAttention(
            self.operator.select_heads(heads), factors, stochastic=self.stochastic
        )
