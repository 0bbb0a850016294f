"""`GroupedAttention`: attention that passes through few groups, `A = L M R`, as its factors."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.combined import Combined
from attnscope.attention.errors import OperatorError
from attnscope.attention.nesting import nested_parts, operator_from
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.row_entropy import entropy_of
from attnscope.attention.tile import TILE_LIMIT, Index, alike, check_tile_size, indices

__all__ = ["GroupedAttention"]


class GroupedAttention(Combined):
    """`A = L M R`: queries read groups, groups read each other, each group stands for some keys.

    Pooled, clustered and super-token attention. Every product costs what its factors cost, O(T m)
    or less for m groups. A factor with one head serves all heads. Where no key belongs to two
    groups (a partition, found by looking at `spread` once), entropy and power sums are exact
    from the groups alone: `H(A_t) = H(P_t) + sum_g P_tg H(R_g)` and
    `sum_j A_tj^p = sum_g P_tg^p sum_j R_gj^p` with `P = L M`. Where groups overlap they are blocked
    passes over the rows of A.

    Args:
        read: `L`, what each query reads of the groups, `(*batch, head | 1, query, group)`.
        spread: `R`, the keys that each group stands for, `(*batch, head | 1, group, key)`.
        mix: `M`, what each group reads of the groups, `(*batch, head | 1, group, group)`; by
            default the identity.
        offset: Key index at the position of query 0; None where there is none. By default 0 where
            queries and keys are the same positions, as many on either side.

    Raises:
        OperatorError: Batch axes, heads or groups of the factors differ.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> read = DenseAttention(torch.tensor([[[0.5, 0.5], [0.0, 1.0]]]))
        >>> spread = DenseAttention(torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]]))
        >>> A = GroupedAttention(read, spread)
        >>> A.dense().tolist()
        [[[0.25, 0.25, 0.5], [0.0, 0.0, 1.0]]]
        >>> A.power_sum(2.0).tolist()  # 0.5^2 (1/2) + 0.5^2 (1), and 1
        [[0.375, 1.0]]
    """

    def __init__(
        self,
        read: AttentionOperator,
        spread: AttentionOperator,
        mix: AttentionOperator | None = None,
        *,
        offset: int | str | None = "same",
    ) -> None:
        super().__init__([read, spread] if mix is None else [read, mix, spread])
        heads = _check(read, spread, mix)
        self.read, self.mix, self.spread = read, mix, spread
        self.shape = torch.Size((*read.shape[:-3], heads, read.queries, spread.keys))
        # A group that reads nothing loses what is read of it.
        self.stochastic = read.stochastic and all(
            factor.stochastic and bool(factor.valid_queries.all()) for factor in self.operands[1:]
        )
        self.signed = any(factor.signed for factor in self.operands)
        self.causal, self.key_axis = False, spread.key_axis
        if isinstance(offset, str):
            same = read.query_axis == spread.key_axis and read.queries == spread.keys
            offset = 0 if same else None
        self.offset = offset

    @property
    def groups(self) -> int:
        """Return the number of groups that queries read."""
        return self.read.keys

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `L (M (R V))`."""
        for factor in reversed(self.operands):
            values = _shared(factor, factor.apply, values)
        return values

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `R^T (M^T (L^T U))`."""
        for factor in self.operands:
            weights = _shared(factor, factor.apply_transpose, weights)
        return weights

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return a tile by the cheapest of three ways: its rows, its columns, or its groups."""
        rows = indices(queries, self.queries, "query")
        columns = indices(keys, self.keys, "key")
        ways: dict[Callable[..., Tensor], int] = {
            self._by_groups: self.groups * (len(rows) + len(columns)),
            self._by_rows: len(rows) * max(self.keys, self.groups),
            self._by_columns: len(columns) * max(self.queries, self.groups),
        }
        way = min(ways, key=lambda each: ways[each])
        check_tile_size((*self.shape[:-2], len(rows), len(columns)), limit)
        check_tile_size((*self.shape[:-2], ways[way]), limit)
        return way(rows.to(self.device), columns.to(self.device), limit).to(self.dtype)

    def _by_rows(self, rows: Tensor, columns: Tensor, limit: int) -> Tensor:
        reached = self._group_rows(rows, limit).mT
        reached = _shared(self.spread, self.spread.apply_transpose, reached)
        return reached.index_select(-2, columns).mT

    def _by_columns(self, rows: Tensor, columns: Tensor, limit: int) -> Tensor:
        reached = self.spread.tile(slice(None), columns, limit=limit)
        for factor in reversed(self.operands[:-1]):
            reached = _shared(factor, factor.apply, reached)
        return reached.index_select(-2, rows)

    def _by_groups(self, rows: Tensor, columns: Tensor, limit: int) -> Tensor:
        reading, standing = alike(
            self._group_rows(rows, limit), self.spread.tile(slice(None), columns, limit=limit)
        )
        return reading @ standing

    def _group_rows(self, rows: Tensor, limit: int) -> Float[Tensor, "*batch #head row group"]:
        """Return rows of `P = L M`."""
        return self._mixed(self.read.tile(rows, slice(None), limit=limit))

    def _mixed(self, reading: Tensor) -> Float[Tensor, "*batch #head row group"]:
        if self.mix is None:
            return reading
        return _shared(self.mix, self.mix.apply_transpose, reading.mT).mT

    @cached_property
    def is_partition(self) -> bool:
        """Return whether no key belongs to two groups; false where there are more groups than keys.

        It takes one pass over the entries of `spread`, and is found when it is first asked for.
        """
        if self.spread.queries > self.keys:
            return False
        groups = torch.zeros((), dtype=torch.long, device=self.device)
        with torch.no_grad():
            for _, block in self.spread.blocks():
                groups = groups + (block != 0).sum(-2)
                if bool((groups > 1).any()):
                    return False
        return True

    def entropy(self) -> Float[Tensor, "*batch head query"]:
        """Return the entropy of each row in nats; of the groups' rows where they share no key."""
        self._require_stochastic("entropy")
        if not self.is_partition:
            return super().entropy()
        within = self.spread.entropy().unsqueeze(-1)
        return self._rowwise_over_groups(
            lambda reading: entropy_of(reading) + (reading @ within).squeeze(-1), torch.nan
        )

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j A_tj^p` of each row; from the groups where they share no key."""
        if self.signed or exponent <= 0 or not self.is_partition:
            return super().power_sum(exponent)
        within = self.spread.power_sum(exponent).unsqueeze(-1)
        return self._rowwise_over_groups(
            lambda reading: (reading.pow(exponent) @ within).squeeze(-1), 0.0
        )

    def _rowwise_over_groups(
        self, function: Callable[[Tensor], Tensor], undefined: float
    ) -> Float[Tensor, "*batch head query"]:
        result = torch.cat(
            [function(self._mixed(block)) for _, block in self.read.blocks()], dim=-1
        )
        return result.to(self.dtype).masked_fill(~self.valid_queries, undefined)

    def normalized(self) -> AttentionOperator:
        """Return the operator whose rows are divided by their sum.

        Where only the reading of the groups leaks, its rows are divided and the groups stay.
        """
        rest = self.operands[1:]
        kept = all(factor.stochastic and bool(factor.valid_queries.all()) for factor in rest)
        if self.stochastic or self.signed or not kept:
            return super().normalized()
        return GroupedAttention(self.read.normalized(), self.spread, self.mix, offset=self.offset)

    def select_heads(self, heads: Index) -> "GroupedAttention":
        """Return some heads; a factor that serves all of them stays as it is."""
        chosen = indices(heads, self.heads, "head")
        return self.with_operands(
            [
                factor if factor.heads < self.heads else factor.select_heads(chosen)
                for factor in self.operands
            ]
        )

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "GroupedAttention":
        """Return the same product of other factors."""
        read, *mix, spread = operands
        return GroupedAttention(read, spread, *mix, offset=self.offset)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the parts of the factors, each led by its name."""
        tensors, facts = {}, {"offset": self.offset}
        for name in ("read", "mix", "spread"):
            factor = getattr(self, name)
            if factor is not None:
                own_tensors, own_facts = nested_parts(name, factor)
                tensors, facts = tensors | own_tensors, facts | own_facts
        return tensors, facts

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "GroupedAttention":
        """Return the operator of stored factors."""
        read, spread = (operator_from(name, tensors, facts) for name in ("read", "spread"))
        mix = operator_from("mix", tensors, facts) if "mix" in facts else None
        return cls(read, spread, mix, offset=facts["offset"])


def _check(
    read: AttentionOperator, spread: AttentionOperator, mix: AttentionOperator | None
) -> int:
    """Return the number of heads of factors that fit each other."""
    factors = [read, spread] if mix is None else [read, mix, spread]
    heads = max(factor.heads for factor in factors)
    fits = all(
        factor.shape[:-3] == read.shape[:-3] and factor.heads in (1, heads) for factor in factors
    )
    if not fits or any(left.keys != right.queries for left, right in pairwise(factors)):
        raise OperatorError(
            f"factors {factors} do not fit; they need one batch, one head or all of them each, and "
            "the shapes (query, group), (group, group), (group, key)"
        )
    return heads


def _shared(
    factor: AttentionOperator, product: Callable[[Tensor], Tensor], columns: Tensor
) -> Float[Tensor, "*batch head row dim"]:
    """Return a factor's product with the columns of more heads than it has itself, in one call."""
    if factor.heads > 1 or columns.shape[-3] == 1:
        return product(columns)
    side_by_side = rearrange(columns, "... head row dim -> ... 1 row (head dim)")
    reached = product(side_by_side)
    return rearrange(reached, "... 1 row (head dim) -> ... head row dim", head=columns.shape[-3])
