"""`OuterAttention`: a low-rank operator `L R^T`, such as the gradient of a loss by the map."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, alike, indices, tile_indices

__all__ = ["OuterAttention"]


class OuterAttention(AttentionOperator):
    """`A_tj = left_t . right_j`, signed, of the rank of its factors' width.

    With `left = dL/dz` (z: a head's output before W_O) and `right = V` it is `dL/dA`, exactly,
    because `z_t = sum_j A_tj v_j`. It has entries where a mask hid the key, too: there the
    attention is 0 and so is the product of the two.

    Args:
        left: `(*batch, head, query, dim)`.
        right: `(*batch, kv_head, key, dim)`, shared by groups of heads.
        offset: Key index at the position of query 0; None where there is none.
        query_axis: What a query is.
        key_axis: What a key is.

    Example:
        >>> G = OuterAttention(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [-1.0]]]))
        >>> G.dense().tolist(), G.row_mass().tolist()
        ([[[3.0, -1.0], [6.0, -2.0]]], [[2.0, 4.0]])
    """

    def __init__(
        self,
        left: Float[Tensor, "*batch head query dim"],
        right: Float[Tensor, "*batch kv_head key dim"],
        *,
        offset: int | None = 0,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        fits = (
            left.ndim >= 3
            and left.shape[:-3] == right.shape[:-3]
            and left.shape[-1] == right.shape[-1]
        )
        if not fits or left.shape[-3] % right.shape[-3]:
            raise OperatorError(
                f"left {tuple(left.shape)} and right {tuple(right.shape)} do not fit; "
                "they need the shapes (*batch, head, query, dim) and (*batch, kv_head, key, dim)"
            )
        self.left, self.right = left, right
        self.shape = torch.Size((*left.shape[:-1], right.shape[-2]))
        self.dtype, self.device = torch.promote_types(left.dtype, torch.float32), left.device
        self.stochastic, self.signed, self.causal = False, True, False
        self.offset, self.query_axis, self.key_axis = offset, query_axis, key_axis

    def _factors(self) -> tuple[Tensor, Tensor]:
        group = self.heads // self.right.shape[-3]
        return self.left.to(self.dtype), self.right.repeat_interleave(group, dim=-3).to(self.dtype)

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `L (R^T V)`."""
        left, right = self._factors()
        right, values = alike(right, values)
        return left.to(right.dtype) @ (right.mT @ values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `R (L^T U)`."""
        left, right = self._factors()
        left, weights = alike(left, weights)
        return right.to(left.dtype) @ (left.mT @ weights)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return products of the chosen rows of the factors."""
        chosen_queries, chosen_keys = tile_indices(self.shape, queries, keys, limit=limit)
        chosen_queries, chosen_keys = chosen_queries.to(self.device), chosen_keys.to(self.device)
        left = self.left.index_select(-2, chosen_queries).to(self.dtype)
        right = self.right.index_select(-2, chosen_keys).to(self.dtype)
        return left @ right.repeat_interleave(self.heads // right.shape[-3], dim=-3).mT

    def select_heads(self, heads: Index) -> "OuterAttention":
        """Return the factors of some heads."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        group = self.heads // self.right.shape[-3]
        return OuterAttention(
            self.left.index_select(-3, chosen),
            self.right.index_select(-3, chosen // group),
            offset=self.offset,
            query_axis=self.query_axis,
            key_axis=self.key_axis,
        )

    def item(self, index: int) -> "OuterAttention":
        """Return the factors of one item of the batch."""
        self._require_batch()
        return OuterAttention(
            self.left[index].detach(),
            self.right[index].detach(),
            offset=self.offset,
            query_axis=self.query_axis,
            key_axis=self.key_axis,
        )

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the two factors."""
        facts = {"offset": self.offset, "query_axis": self.query_axis, "key_axis": self.key_axis}
        return {"left": self.left, "right": self.right}, facts

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "OuterAttention":
        """Return the operator of stored factors."""
        return cls(tensors["left"], tensors["right"], **facts)
