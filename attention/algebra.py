"""Sums, products and transposes of operators."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.combined import Combined
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, check_tile_size, indices

__all__ = ["ProductAttention", "SumAttention", "TransposedAttention"]


class SumAttention(Combined):
    """The sum of operators of one shape.

    Args:
        terms: The operators.
        stochastic: Whether the rows of the sum are distributions, which its terms cannot tell:
            a mixture is one, a plain sum is not.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.eye(2)[None])
        >>> (0.5 * A + 0.5 * A).stochastic, (A + A).row_mass().tolist()
        (False, [[2.0, 2.0]])
    """

    def __init__(self, terms: Sequence[AttentionOperator], *, stochastic: bool = False) -> None:
        super().__init__(terms)
        for term in terms[1:]:
            if term.shape != terms[0].shape:
                raise OperatorError(
                    f"a sum needs one shape; got {tuple(terms[0].shape)} and {tuple(term.shape)}"
                )
        self.stochastic = stochastic
        self.signed = any(term.signed for term in terms)
        self.offset = terms[0].offset if len({term.offset for term in terms}) == 1 else None
        self.causal = self.offset is not None and all(term.causal for term in terms)

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist in some term."""
        valid = self.operands[0].valid_queries
        for term in self.operands[1:]:
            valid = valid | term.valid_queries
        return valid

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the sum of what the terms read."""
        return _total([term.apply(values) for term in self.operands])

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return the sum of what the terms' keys receive."""
        return _total([term.apply_transpose(weights) for term in self.operands])

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the sum of the terms' tiles."""
        return _total([term.tile(queries, keys, limit=limit) for term in self.operands])

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "SumAttention":
        """Return the sum of other terms; whether rows are distributions is known of the whole."""
        return SumAttention(operands, stochastic=self.stochastic)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the parts of the terms."""
        tensors, facts = super().parts()
        return tensors, facts | {"stochastic": self.stochastic}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "SumAttention":
        """Return the sum of stored terms."""
        return cls(cls.stored_operands(tensors, facts), stochastic=facts["stochastic"])


class TransposedAttention(Combined):
    """An operator with queries and keys exchanged: its rows are the columns."""

    def __init__(self, operator: AttentionOperator) -> None:
        super().__init__([operator])
        self.shape = torch.Size((*operator.shape[:-2], operator.keys, operator.queries))
        self.stochastic = self.causal = False
        self.offset = None if operator.offset is None else -operator.offset
        self.query_axis, self.key_axis = operator.key_axis, operator.query_axis

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return that every row exists, for every key does."""
        return super(Combined, self).valid_queries

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return what the columns receive."""
        return self.operands[0].apply_transpose(values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return what the rows read."""
        return self.operands[0].apply(weights)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the operator's tile, transposed."""
        return self.operands[0].tile(keys, queries, limit=limit).mT

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "TransposedAttention":
        """Return the transpose of another operator."""
        return TransposedAttention(*operands)

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "TransposedAttention":
        """Return the transpose of a stored operator."""
        return cls(*cls.stored_operands(tensors, facts))


class ProductAttention(Combined):
    """The product of operators: the first reads what the second has read, and so on.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
        >>> (A @ A).rows([1]).tolist()
        [[[0.75, 0.25]]]
    """

    def __init__(self, factors: Sequence[AttentionOperator]) -> None:
        super().__init__(factors)
        for left, right in pairwise(factors):
            if left.keys != right.queries or left.shape[:-2] != right.shape[:-2]:
                raise OperatorError(
                    f"cannot multiply {left!r} by {right!r}: batch, heads or inner axes differ"
                )
        self.shape = torch.Size((*factors[0].shape[:-1], factors[-1].keys))
        self.stochastic = all(factor.stochastic for factor in factors)
        self.signed = any(factor.signed for factor in factors)
        self.causal = all(factor.causal for factor in factors)
        offsets = [factor.offset for factor in factors]
        self.offset = (
            None if None in offsets else sum(offset for offset in offsets if offset is not None)
        )
        self.key_axis = factors[-1].key_axis

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the values read through every factor, the last factor first."""
        for factor in reversed(self.operands):
            values = factor.apply(values)
        return values

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return the weights pushed back through every factor, the first factor first."""
        for factor in self.operands:
            weights = factor.apply_transpose(weights)
        return weights

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return a tile by thin products with unit vectors, on the thinner side."""
        rows = indices(queries, self.queries, "query").to(self.device)
        columns = indices(keys, self.keys, "key").to(self.device)
        thin, longest = min(len(rows), len(columns)), max(self.queries, self.keys)
        check_tile_size((*self.shape[:-2], thin, longest), limit)
        if thin == 0:
            return torch.zeros(
                *self.shape[:-2], len(rows), len(columns), dtype=self.dtype, device=self.device
            )
        if len(rows) <= len(columns):
            reached = self.apply_transpose(self._units(rows, self.queries))
            return reached.index_select(-2, columns).mT
        return self.apply(self._units(columns, self.keys)).index_select(-2, rows)

    def _units(self, chosen: Tensor, length: int) -> Float[Tensor, "*batch head length chosen"]:
        units = torch.zeros(length, len(chosen), dtype=self.dtype, device=self.device)
        units[chosen, torch.arange(len(chosen), device=self.device)] = 1
        return units.expand(*self.shape[:-2], -1, -1)

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "ProductAttention":
        """Return the product of other factors."""
        return ProductAttention(operands)

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "ProductAttention":
        """Return the product of stored factors."""
        return cls(cls.stored_operands(tensors, facts))


def _total(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
