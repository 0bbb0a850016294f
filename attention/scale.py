"""`ScaledAttention`: an operator times a number, the same for all heads or one for each."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attnscope.attention.combined import Combined
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, indices

__all__ = ["ScaledAttention"]


class ScaledAttention(Combined):
    """An operator times a number, the same for all heads or one for each.

    Args:
        operator: The operator.
        factor: One number, or `(head,)`.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.ones(2, 1, 1))
        >>> ScaledAttention(A, torch.tensor([0.25, 0.75])).row_mass().flatten().tolist()
        [0.25, 0.75]
    """

    def __init__(self, operator: AttentionOperator, factor: float | Float[Tensor, " head"]) -> None:
        super().__init__([operator])
        if isinstance(factor, Tensor) and factor.shape != (operator.heads,):
            raise OperatorError(
                f"factor has shape {tuple(factor.shape)}; one number, or one for each of "
                f"{operator.heads} heads"
            )
        self.factor = factor
        smallest = float(factor.detach().min()) if isinstance(factor, Tensor) else factor
        largest = float(factor.detach().max()) if isinstance(factor, Tensor) else factor
        self.stochastic = operator.stochastic and smallest == largest == 1
        self.signed = operator.signed or smallest < 0

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the multiple of what the operator reads."""
        return self._scaled(self.operands[0].apply(values))

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return the multiple of what the keys receive."""
        return self._scaled(self.operands[0].apply_transpose(weights))

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the multiple of the operator's tile."""
        return self._scaled(self.operands[0].tile(queries, keys, limit=limit))

    def band(self, width: int) -> Float[Tensor, "*batch head query {width}"]:
        """Return the multiple of the operator's band."""
        return self._scaled(self.operands[0].band(width))

    def select_heads(self, heads: Index) -> "ScaledAttention":
        """Return the chosen heads with their factors."""
        factor = self.factor
        if isinstance(factor, Tensor):
            factor = factor[indices(heads, self.heads, "head").to(factor.device)]
        return ScaledAttention(self.operands[0].select_heads(heads), factor)

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "ScaledAttention":
        """Return the same multiple of another operator."""
        factor = self.factor
        return ScaledAttention(
            operands[0], factor.detach() if isinstance(factor, Tensor) else factor
        )

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the operator's parts and the factor."""
        tensors, facts = super().parts()
        if isinstance(self.factor, Tensor):
            return tensors | {"factor": self.factor}, facts
        return tensors, facts | {"factor": self.factor}

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "ScaledAttention":
        """Return the multiple of a stored operator."""
        factor = tensors["factor"] if "factor" in tensors else facts["factor"]
        return cls(cls.stored_operands(tensors, facts)[0], factor)

    def _scaled(self, result: Tensor) -> Tensor:
        if not isinstance(self.factor, Tensor):
            return result * self.factor
        return result * self.factor.to(result.dtype)[:, None, None]
