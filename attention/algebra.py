"""Operators made of operators: sums, products, multiples, transposes and means over heads."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, check_tile_size, indices

__all__ = [
    "Combined",
    "ProductAttention",
    "ScaledAttention",
    "SumAttention",
    "TransposedAttention",
]


class Combined(AttentionOperator):
    """What all combinations share: sizes and types of their first operator."""

    def __init__(self, first: AttentionOperator) -> None:
        self.shape, self.dtype, self.device = first.shape, first.dtype, first.device
        self.stochastic, self.signed, self.causal = first.stochastic, first.signed, first.causal
        self.offset, self.query_axis, self.key_axis = first.offset, first.query_axis, first.key_axis

    @abstractmethod
    def select_heads(self, heads: Index) -> AttentionOperator:
        """Return the combination of the chosen heads."""

    def parts(self) -> NoReturn:
        """Refuse: a combination is built again from its parts' own traces."""
        raise OperatorError(f"{self!r} is a combination; store the operators that it is made of")

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Combined":
        """Refuse, as `parts` does."""
        raise OperatorError(f"{cls.__name__} is a combination and is not stored")


class SumAttention(Combined):
    """The sum of operators of one shape.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.eye(2)[None])
        >>> (0.5 * A + 0.5 * A).stochastic, (A + A).row_mass().tolist()
        (False, [[2.0, 2.0]])
    """

    def __init__(self, terms: Sequence[AttentionOperator]) -> None:
        super().__init__(terms[0])
        for term in terms[1:]:
            if term.shape != terms[0].shape:
                raise OperatorError(
                    f"a sum needs one shape; got {tuple(terms[0].shape)} and {tuple(term.shape)}"
                )
        self.terms = tuple(terms)
        self.dtype = _common_type(terms)
        self.stochastic = False
        self.signed = any(term.signed for term in terms)
        self.offset = terms[0].offset if len({term.offset for term in terms}) == 1 else None
        self.causal = self.offset is not None and all(term.causal for term in terms)

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist in some term."""
        valid = self.terms[0].valid_queries
        for term in self.terms[1:]:
            valid = valid | term.valid_queries
        return valid

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the sum of what the terms read."""
        return _total([term.apply(values) for term in self.terms])

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return the sum of what the terms' keys receive."""
        return _total([term.apply_transpose(weights) for term in self.terms])

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the sum of the terms' tiles."""
        return _total([term.tile(queries, keys, limit=limit) for term in self.terms])

    def select_heads(self, heads: Index) -> "SumAttention":
        """Return the sum over the chosen heads."""
        return SumAttention([term.select_heads(heads) for term in self.terms])


class ScaledAttention(Combined):
    """An operator times a number."""

    def __init__(self, operator: AttentionOperator, factor: float) -> None:
        super().__init__(operator)
        self.operator, self.factor = operator, factor
        self.stochastic = operator.stochastic and factor == 1
        self.signed = operator.signed or factor < 0

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist."""
        return self.operator.valid_queries

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the multiple of what the operator reads."""
        return self.operator.apply(values) * self.factor

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return the multiple of what the keys receive."""
        return self.operator.apply_transpose(weights) * self.factor

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the multiple of the operator's tile."""
        return self.operator.tile(queries, keys, limit=limit) * self.factor

    def select_heads(self, heads: Index) -> "ScaledAttention":
        """Return the multiple of the chosen heads."""
        return ScaledAttention(self.operator.select_heads(heads), self.factor)


class TransposedAttention(Combined):
    """An operator with queries and keys exchanged: its rows are the columns."""

    def __init__(self, operator: AttentionOperator) -> None:
        super().__init__(operator)
        self.operator = operator
        self.shape = torch.Size((*operator.shape[:-2], operator.keys, operator.queries))
        self.stochastic = self.causal = False
        self.offset = None if operator.offset is None else -operator.offset
        self.query_axis, self.key_axis = operator.key_axis, operator.query_axis

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return what the columns receive."""
        return self.operator.apply_transpose(values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return what the rows read."""
        return self.operator.apply(weights)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the operator's tile, transposed."""
        return self.operator.tile(keys, queries, limit=limit).mT

    def select_heads(self, heads: Index) -> "TransposedAttention":
        """Return the transposed heads."""
        return TransposedAttention(self.operator.select_heads(heads))


class ProductAttention(Combined):
    """The product of operators: the first reads what the second has read, and so on.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
        >>> (A @ A).rows([1]).tolist()
        [[[0.75, 0.25]]]
    """

    def __init__(self, factors: Sequence[AttentionOperator]) -> None:
        super().__init__(factors[0])
        for left, right in pairwise(factors):
            if left.keys != right.queries or left.shape[:-2] != right.shape[:-2]:
                raise OperatorError(
                    f"cannot multiply {left!r} by {right!r}: batch, heads or inner axes differ"
                )
        self.factors = tuple(factors)
        self.dtype = _common_type(factors)
        self.shape = torch.Size((*factors[0].shape[:-1], factors[-1].keys))
        self.stochastic = all(factor.stochastic for factor in factors)
        self.signed = any(factor.signed for factor in factors)
        self.causal = all(factor.causal for factor in factors)
        offsets = [factor.offset for factor in factors]
        self.offset = (
            None if None in offsets else sum(offset for offset in offsets if offset is not None)
        )
        self.key_axis = factors[-1].key_axis

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist in the first factor."""
        return self.factors[0].valid_queries

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the values read through every factor, the last factor first."""
        for factor in reversed(self.factors):
            values = factor.apply(values)
        return values

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return the weights pushed back through every factor, the first factor first."""
        for factor in self.factors:
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

    def select_heads(self, heads: Index) -> "ProductAttention":
        """Return the product over the chosen heads."""
        return ProductAttention([factor.select_heads(heads) for factor in self.factors])


def _common_type(operators: Sequence[AttentionOperator]) -> torch.dtype:
    dtype = operators[0].dtype
    for operator in operators[1:]:
        dtype = torch.promote_types(dtype, operator.dtype)
    return dtype


def _total(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
