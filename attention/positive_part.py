"""`PositiveAttention`: an operator whose negative entries are 0."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.combined import Combined
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, block_length

__all__ = ["PositiveAttention"]


class PositiveAttention(Combined):
    """`max(B_tj, 0)` of an operator `B`, in blocks of rows.

    The positive part is no product of factors, so that nothing of it is known without the entries:
    every method takes a pass over tiles, in the memory of a block. Of attention times its gradient
    (`HadamardAttention(A, dL/dz, V)`) it is what raises a target.

    Args:
        operator: `B`.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = PositiveAttention(DenseAttention(torch.tensor([[[0.5, -2.0], [-1.0, 3.0]]])))
        >>> A.dense().tolist(), A.row_mass().tolist(), A.signed
        ([[[0.5, 0.0], [0.0, 3.0]]], [[0.5, 3.0]], False)
    """

    def __init__(self, operator: AttentionOperator) -> None:
        super().__init__([operator])
        self.stochastic = operator.stochastic and not operator.signed
        self.signed = False

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `B^+ V` from blocks of rows."""
        values = values.to(torch.promote_types(values.dtype, self.dtype))
        return torch.cat(
            [tile.to(values.dtype) @ values[..., keys, :] for _, keys, tile in self._seen()], dim=-2
        )

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `(B^+)^T U` from blocks of rows."""
        weights = weights.to(torch.promote_types(weights.dtype, self.dtype))
        total = weights.new_zeros(*self.shape[:-2], self.keys, weights.shape[-1])
        for rows, keys, tile in self._seen():
            received = tile.to(weights.dtype).mT @ weights[..., rows, :]
            total = total + torch.nn.functional.pad(received, (0, 0, 0, self.keys - keys.stop))
        return total

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the operator's tile without what is negative."""
        return self.operands[0].tile(queries, keys, limit=limit).clamp_min(0)

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "PositiveAttention":
        """Return the positive part of another operator."""
        return PositiveAttention(*operands)

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "PositiveAttention":
        """Return the positive part of a stored operator."""
        return cls(*cls.stored_operands(tensors, facts))

    def _seen(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield blocks of rows, the leading keys that these may see, and the tile of both."""
        step = block_length(self.shape)
        for start in range(0, self.queries, step):
            rows = slice(start, min(start + step, self.queries))
            seen = rows.stop + self.offset if self.causal and self.offset is not None else self.keys
            keys = slice(0, min(max(seen, 0), self.keys))
            yield rows, keys, self.tile(rows, keys)
