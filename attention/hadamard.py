"""`HadamardAttention`: an operator times a low-rank matrix, entry by entry."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attnscope.attention.combined import Combined
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, block_length, indices

__all__ = ["HadamardAttention"]


class HadamardAttention(Combined):
    """`A_tj = B_tj (l_t . r_j)` of an operator `B`: what is 0 in `B` stays 0.

    It is the attention of mechanisms that correct a softmax by a product of features (Local Linear
    Attention). Blocks of rows are multiplied out one after the other, and again in the backward
    pass, so that memory is that of a block.

    Args:
        operator: `B`.
        left: `(*batch, head, query, dim)`.
        right: `(*batch, head, key, dim)`.
        signed: Whether entries may be negative; by default they may if `B` is signed or any
            number of a factor is negative.

    Raises:
        OperatorError: The factors do not fit the operator or each other.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> B = DenseAttention(torch.tensor([[[0.5, 0.5]]]))
        >>> left, right = torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[4.0, 0.0], [1.0, 1.0]]])
        >>> A = HadamardAttention(B, left, right)
        >>> A.dense().tolist(), A.row_mass().tolist(), A.signed
        ([[[2.0, -0.5]]], [[1.5]], True)
    """

    def __init__(
        self,
        operator: AttentionOperator,
        left: Float[Tensor, "*batch head query dim"],
        right: Float[Tensor, "*batch head key dim"],
        *,
        signed: bool | None = None,
    ) -> None:
        super().__init__([operator])
        rows, columns = operator.shape[:-1], (*operator.shape[:-2], operator.keys)
        if (left.shape[:-1], right.shape[:-1]) != (rows, columns) or left.shape[-1] != right.shape[
            -1
        ]:
            raise OperatorError(
                f"left {tuple(left.shape)} and right {tuple(right.shape)} do not fit {operator!r}; "
                f"they need the shapes {(*rows, 'dim')} and {(*columns, 'dim')}"
            )
        self.left, self.right = left, right
        self.dtype = torch.promote_types(
            torch.promote_types(left.dtype, right.dtype), operator.dtype
        )
        negative = any(bool((factor.detach() < 0).any()) for factor in (left, right))
        self.signed = operator.signed or negative if signed is None else signed
        self.stochastic = False

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `A V` from blocks of rows."""
        values = values.to(torch.promote_types(values.dtype, self.dtype))

        def read(rows: slice, keys: slice) -> Tensor:
            return self.tile(rows, keys).to(values.dtype) @ values[..., keys, :]

        return torch.cat(list(self._each_block(read)), dim=-2)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U` from blocks of rows."""
        weights = weights.to(torch.promote_types(weights.dtype, self.dtype))

        def receive(rows: slice, keys: slice) -> Tensor:
            received = self.tile(rows, keys).to(weights.dtype).mT @ weights[..., rows, :]
            return torch.nn.functional.pad(received, (0, 0, 0, self.keys - keys.stop))

        shape = (*self.shape[:-2], self.keys, weights.shape[-1])
        return sum(self._each_block(receive), start=weights.new_zeros(shape))

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the operator's tile times the products of the chosen rows of the factors."""
        tile = self.operands[0].tile(queries, keys, limit=limit)
        rows = indices(queries, self.queries, "query").to(self.device)
        columns = indices(keys, self.keys, "key").to(self.device)
        left = self.left.index_select(-2, rows).to(self.dtype)
        right = self.right.index_select(-2, columns).to(self.dtype)
        return tile * (left @ right.mT)

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return `l_t . (B R)_t`, at the operator's own cost."""
        return (self.left * self.operands[0].apply(self.right.to(self.dtype))).sum(-1)

    def select_heads(self, heads: Index) -> "HadamardAttention":
        """Return the chosen heads with their factors."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        left, right = self.left.index_select(-3, chosen), self.right.index_select(-3, chosen)
        operator = self.operands[0].select_heads(heads)
        return HadamardAttention(operator, left, right, signed=self.signed)

    def item(self, index: int) -> "HadamardAttention":
        """Return one item of the batch with its factors, cut from the graph."""
        factors = (self.left[index].detach(), self.right[index].detach())
        return HadamardAttention(self.operands[0].item(index), *factors, signed=self.signed)

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "HadamardAttention":
        """Return another operator times the same factors."""
        (operator,) = operands
        return HadamardAttention(operator, self.left, self.right, signed=self.signed)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the operator's parts and the factors."""
        tensors, facts = super().parts()
        factors = {"left": self.left, "right": self.right}
        return tensors | factors, facts | {"signed": self.signed}

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "HadamardAttention":
        """Return a stored operator times its stored factors."""
        (operator,) = cls.stored_operands(tensors, facts)
        return cls(operator, tensors["left"], tensors["right"], signed=facts["signed"])

    def _each_block(self, function: Any) -> Iterator[Tensor]:
        """Yield the function of each block's rows and of the keys that these may see.

        Where there are several, autograd keeps none of their tiles and makes each again.
        """
        step = block_length(self.shape)
        again = torch.is_grad_enabled() and step < self.queries
        for start in range(0, self.queries, step):
            rows = slice(start, min(start + step, self.queries))
            seen = rows.stop + self.offset if self.causal and self.offset is not None else self.keys
            keys = slice(0, min(max(seen, 0), self.keys))
            if again:
                yield checkpoint(function, rows, keys, use_reentrant=False)
            else:
                yield function(rows, keys)
