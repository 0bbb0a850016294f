"""`TruncatedAttention`: the largest weights of each row, and exactly how much of it is gone."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.indexed import IndexedAttention
from attnscope.attention.key_function import KeyFunction
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import Index, indices
from attnscope.attention.truncation_bounds import entropy_bounds, moment_bounds

__all__ = ["TruncatedAttention"]

Bounds = tuple[Float[Tensor, "*batch head query"], Float[Tensor, "*batch head query"]]


class TruncatedAttention(IndexedAttention):
    """What is left of attention of which only the largest weights of each row were kept.

    Tiles, rows and columns show the kept weights, and 0 where a weight may be gone: each lost one
    is at most the least that its row kept, and together they are `lost`. `row_mass()` is that of
    the whole row. Whatever needs the lost weights (products, entropy, bands, sums of columns) is
    refused unless nothing is lost; `entropy_bounds()` and `moment_bounds()` say between which
    numbers it lies.

    Attributes:
        partial: Whether anything was lost at all.

    Args:
        weights: The kept weights, in descending order, `(*batch, head, query, slot)`; 0 in empty
            slots.
        index: Key of each slot, -1 where it is empty.
        keys: How many keys there are.
        lost: Sum of the weights that are gone from each row; 0 where none is.
        stochastic: Whether the whole rows were distributions.
        causal: Whether no query of the whole operator read a key behind its own position.
        offset: Key index at the position of query 0; None where there is none.
        query_axis: What a query is.
        key_axis: What a key is.

    Raises:
        OperatorError: The parts do not fit each other, or a weight is negative.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> whole = DenseAttention(torch.tensor([[[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]]))
        >>> A = TruncatedAttention.of(whole, 2)
        >>> A.dense().tolist(), A.lost.tolist()
        ([[[0.25, 0.75, 0.0], [0.5, 0.0, 0.375]]], [[0.0, 0.125]])
        >>> low, high = A.entropy_bounds()  # of two keys nothing is lost; the third was one key
        >>> [round(float(h), 4) for h in low[0]] == [round(float(h), 4) for h in whole.entropy()[0]]
        True
    """

    def __init__(  # noqa: PLR0913 - a table, what it lost, and what the axes are
        self,
        weights: Float[Tensor, "*batch head query slot"],
        index: Int[Tensor, "*tables query slot"],
        keys: int,
        lost: Float[Tensor, "*batch head query"],
        *,
        stochastic: bool,
        causal: bool,
        offset: int | None = None,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        super().__init__(
            weights, index, keys, offset=offset, query_axis=query_axis, key_axis=key_axis
        )
        if lost.shape != weights.shape[:-1] or self.signed or bool((lost < 0).any()):
            raise OperatorError(
                f"weights {tuple(weights.shape)} and what was lost of them {tuple(lost.shape)} "
                "need one number per row, and neither may be negative"
            )
        self.lost = lost
        self.stochastic, self.causal = stochastic, causal
        self.partial = bool(lost.any())

    @classmethod
    def of(
        cls, attention: AttentionOperator, count: int, *, dtype: torch.dtype | None = None
    ) -> "TruncatedAttention":
        """Return the `count` largest weights of each row, by blocks of rows in O(T block) memory.

        Args:
            attention: The whole operator.
            count: How many weights of a row are kept at most.
            dtype: Type of the kept weights; by default the operator's. What is lost is summed in
                the operator's type whatever it is.

        Raises:
            OperatorError: Weights may be negative, or `count` is not positive.
        """
        if attention.signed or count < 1:
            raise OperatorError(
                f"the {count} largest weights of {attention!r}: it takes a positive count and "
                "weights that are nowhere negative"
            )
        count = min(count, attention.keys)
        pieces = zip(*(_largest(block, count) for _, block in attention.blocks()), strict=True)
        weights, index, lost = (torch.cat(parts, dim=-2) for parts in pieces)
        return cls(
            weights.to(dtype or weights.dtype),
            index,
            attention.keys,
            lost.squeeze(-1),
            stochastic=attention.stochastic,
            causal=attention.causal,
            offset=attention.offset,
            query_axis=attention.query_axis,
            key_axis=attention.key_axis,
        )

    # --- what is still exact ----------------------------------------------------------------

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the sum of each whole row: what was kept and what was lost."""
        return super().row_mass() + self.lost.to(self.dtype)

    def kept(self) -> IndexedAttention:
        """Return the kept weights as an operator of their own, whose rows miss what was lost."""
        names = ("weights", "index", "keys", "offset", "query_axis", "key_axis")
        return IndexedAttention(**{name: getattr(self, name) for name in names})

    def select_heads(self, heads: Index) -> "TruncatedAttention":
        """Return the kept weights of some heads."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        own = self.index.ndim > 2 and self.index.shape[-3] > 1
        return self._rebuilt(
            weights=self.weights.index_select(-3, chosen),
            index=self.index.index_select(-3, chosen) if own else self.index,
            lost=self.lost.index_select(-2, chosen),
        )

    def item(self, index: int) -> "TruncatedAttention":
        """Return one item of the first batch axis, cut from the graph."""
        self._require_batch()
        table = self.index
        if table.ndim == self.weights.ndim:
            table = table[index if len(table) > 1 else 0]
        return self._rebuilt(
            weights=self.weights[index].detach(), index=table, lost=self.lost[index]
        )

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return weights, table (in 32 bits) and what was lost."""
        tensors, facts = super().parts()
        index = self._short_index.reshape(tensors["index"].shape)
        tensors |= {"index": index, "lost": self.lost.unsqueeze(-1)}
        return tensors, facts | {"stochastic": self.stochastic, "causal": self.causal}

    @cached_property
    def _short_index(self) -> Tensor:
        """Return the table in 32 bits, one tensor for as long as the operator lives."""
        return self.index.int()

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "TruncatedAttention":
        """Return the operator of stored weights."""
        plain = dict(facts)
        keys = plain.pop("keys")
        return cls(tensors["weights"], tensors["index"], keys, tensors["lost"].squeeze(-1), **plain)

    # --- what is known within bounds --------------------------------------------------------

    def entropy_bounds(self) -> Bounds:
        """Return the least and the greatest entropy in nats that each whole row can have.

        Raises:
            OperatorError: The whole rows were no distributions.
        """
        self._require_stochastic("entropy")
        least = self._least_kept()
        return entropy_bounds(self._distinct(), self.lost, least, self._unseen())

    def moment_bounds(self, function: KeyFunction) -> Bounds:
        """Return the least and the greatest `sum_j A_tj f(j)` that each whole row can have."""
        known = self.kept().key_moment(function)
        values = function.values(self.keys).to(self.device, self.dtype)
        places = self._last_key()
        return moment_bounds(known, self.lost.to(self.dtype), values, places)

    def _least_kept(self) -> Tensor:
        """Return the most that a single lost weight can be, rounding of the kept ones included."""
        eps = torch.finfo(self.weights.dtype).eps
        return self.weights.amin(-1).to(self.dtype) * (1 + eps)

    def _last_key(self) -> Tensor | None:
        """Return the last key that each query could see, where the operator was causal."""
        if not self.causal or self.offset is None:
            return None
        return self._positions(self.offset).squeeze(-1).clamp(0, self.keys - 1)

    def _unseen(self) -> Tensor:
        """Return how many keys besides the kept ones each row could have read."""
        last = self._last_key()
        visible = torch.tensor(self.keys, device=self.device) if last is None else last + 1
        return (visible - (self.index >= 0).sum(-1)).clamp_min(0)

    # --- what the lost weights would be needed for --------------------------------------------

    def apply(self, values: Tensor) -> Tensor:
        """Return `A V` where nothing is lost."""
        self._require_whole("apply")
        return super().apply(values)

    def apply_transpose(self, weights: Tensor) -> Tensor:
        """Return `A^T U` where nothing is lost."""
        self._require_whole("apply_transpose")
        return super().apply_transpose(weights)

    def blocks(self) -> Any:
        """Yield whole rows where nothing is lost."""
        self._require_whole("blocks")
        return super().blocks()

    def band(self, width: int) -> Tensor:
        """Return the diagonal band where nothing is lost."""
        self._require_whole("band")
        return super().band(width)

    def entropy(self) -> Tensor:
        """Return the entropy of each row where nothing is lost."""
        self._require_whole("entropy")
        return super().entropy()

    def power_sum(self, exponent: float) -> Tensor:
        """Return `sum_j A_tj^p` where nothing is lost."""
        self._require_whole("power_sum")
        return super().power_sum(exponent)

    def normalized(self) -> AttentionOperator:
        """Return the operator with rows that sum to 1: itself, or where nothing is lost."""
        if not self.stochastic:
            self._require_whole("normalized")
            return self.kept().normalized()
        return self

    def _require_whole(self, what: str) -> None:
        if self.partial:
            raise OperatorError(
                f"{what} needs whole rows; of {self!r} only the {self.weights.shape[-1]} largest "
                f"weights of each row were kept, up to {float(self.lost.max()):.3g} of a row is "
                "gone (entropy_bounds() and moment_bounds() say what can be said; "
                "kept() is what is left)"
            )

    def _rebuilt(self, **changes: Any) -> "TruncatedAttention":
        names = ("weights", "index", "keys", "lost", "stochastic", "causal", "offset")
        names += ("query_axis", "key_axis")
        return TruncatedAttention(**({name: getattr(self, name) for name in names} | changes))


def _largest(block: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest weights of the rows of a block, their keys, and the sum of the others."""
    weights, index = block.topk(count, dim=-1)
    # Summed without the kept ones: a difference of two sums would leave rounding behind.
    lost = block.scatter(-1, index, 0.0).sum(-1, keepdim=True)
    return weights, index.masked_fill(weights == 0, -1).int(), lost
