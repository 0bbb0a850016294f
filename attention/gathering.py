"""Products along an index table of keys per query, in O(T w) memory and differentiable twice.

Three products are closed under differentiation: each one's gradients are the other two. None ever
builds the gathered `(query, slot, dim)` tensor: sums run through fused bags, dot products through
sampled matrix products.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import embedding_bag

__all__ = ["Table", "gather_dot", "gather_sum", "scatter_sum"]

_CHUNK_SLOTS = 2**20
"""Slots whose positions are written out at once (4 MiB): small heads go through one call."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Keys of the slots of each query, -1 where a slot is empty, and whose table each is.

    Attributes:
        index: One table or several, `(table, query, slot)`.
        owners: Table of each head, all batch axes flattened.
        keys: How many keys there are.
        holes: Whether any slot is empty.
    """

    index: Int[Tensor, "table query slot"]
    owners: Int[Tensor, " head"]
    keys: int
    holes: bool

    @classmethod
    def of(cls, index: Tensor, lead: torch.Size, keys: int) -> "Table":
        """Return the table of heads of shape `lead`, to which the index's own axes broadcast."""
        own = index.shape[:-2]
        owners = torch.arange(own.numel()).reshape(own).expand(lead).reshape(-1)
        holes = bool(index.numel()) and bool((index < 0).any())
        return cls(index.reshape(own.numel(), *index.shape[-2:]), owners, keys, holes)

    def cleared(self, weights: Tensor) -> Tensor:
        """Return weights `(head, query, slot)` with 0 in empty slots."""
        if not self.holes:
            return weights
        filled = (self.index >= 0)[self.owners.to(self.index.device)]
        return torch.where(filled, weights, 0)

    def chunks(self) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Yield some heads and the table that they share."""
        most = max(1, _CHUNK_SLOTS // max(1, self.index[0].numel()))
        for number, index in enumerate(self.index):
            members = (self.owners == number).nonzero().squeeze(-1)
            for heads in members.split(most):
                run = slice(int(heads[0]), int(heads[-1]) + 1)
                neighbors = run.stop - run.start == len(heads)
                yield run if neighbors else heads.to(index.device), index


def gather_dot(
    query: Float[Tensor, "head query dim"], key: Float[Tensor, "head key dim"], table: Table
) -> Float[Tensor, "head query slot"]:
    """Return `q_t . k_j` for the key `j` of each slot of query `t`, 0 where a slot is empty."""
    return _GatherDot.apply(query, key, table)  # pyright: ignore[reportReturnType] - untyped


def gather_sum(
    weights: Float[Tensor, "head query slot"], values: Float[Tensor, "head key dim"], table: Table
) -> Float[Tensor, "head query dim"]:
    """Return the weighted sum of the values of each query's slots."""
    return _GatherSum.apply(weights, values, table)  # pyright: ignore[reportReturnType] - untyped


def scatter_sum(
    weights: Float[Tensor, "head query slot"], rows: Float[Tensor, "head query dim"], table: Table
) -> Float[Tensor, "head key dim"]:
    """Return the weighted sum of the rows of all queries in whose slots a key stands."""
    return _ScatterSum.apply(weights, rows, table)  # pyright: ignore[reportReturnType] - untyped


class _GatherDot(Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, table: Table) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.table = table
        output = query.new_zeros(*query.shape[:2], table.index.shape[-1])
        for heads, index in table.chunks() if output.numel() and table.keys else ():
            output[heads] = _sampled_product(query[heads], key[heads], index)
        return table.cleared(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - one output
        query, key = ctx.saved_tensors
        for_query, for_key, _ = ctx.needs_input_grad
        return (
            gather_sum(gradient, key, ctx.table) if for_query else None,
            scatter_sum(gradient, query, ctx.table) if for_key else None,
            None,
        )


class _GatherSum(Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, table: Table) -> Tensor:
        ctx.save_for_backward(weights, values)
        ctx.table = table
        output = values.new_zeros(*weights.shape[:2], values.shape[-1])
        weights = table.cleared(weights)
        for heads, index in table.chunks() if output.numel() and weights.numel() else ():
            some = values.detach()[heads]
            read = embedding_bag(
                _flat_positions(index, len(some), table.keys).flatten(0, 1),
                some.flatten(0, 1).contiguous(),
                mode="sum",
                per_sample_weights=weights.detach()[heads].flatten(0, 1),
            )
            output[heads] = read.reshape(len(some), *output.shape[1:])
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - one output
        weights, values = ctx.saved_tensors
        for_weights, for_values, _ = ctx.needs_input_grad
        return (
            gather_dot(gradient, values, ctx.table) if for_weights else None,
            scatter_sum(weights, gradient, ctx.table) if for_values else None,
            None,
        )


class _ScatterSum(Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, rows: Tensor, table: Table) -> Tensor:
        ctx.save_for_backward(weights, rows)
        ctx.table = table
        output = rows.new_zeros(rows.shape[0], table.keys, rows.shape[-1])
        for heads, index in table.chunks() if output.numel() and weights.numel() else ():
            some, (order, starts) = rows.detach()[heads], _slots_by_key(index, table.keys)
            first = torch.arange(len(some), device=order.device).unsqueeze(-1)
            readers = order // index.shape[-1] + first * rows.shape[1]
            received = embedding_bag(
                readers.reshape(-1),
                some.flatten(0, 1).contiguous(),
                (starts + first * len(order)).reshape(-1),
                mode="sum",
                per_sample_weights=weights.detach()[heads]
                .flatten(1)
                .index_select(1, order)
                .reshape(-1),
            )
            output[heads] = received.reshape(len(some), *output.shape[1:])
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - one output
        weights, rows = ctx.saved_tensors
        for_weights, for_rows, _ = ctx.needs_input_grad
        return (
            gather_dot(rows, gradient, ctx.table) if for_weights else None,
            gather_sum(weights, gradient, ctx.table) if for_rows else None,
            None,
        )


def _flat_positions(index: Tensor, heads: int, keys: int) -> Tensor:
    """Return each slot's row in the keys of all heads laid end to end; an empty slot's is any."""
    first = torch.arange(heads, device=index.device, dtype=torch.int32) * keys
    return index.clamp_min(0).int() + first[:, None, None]


def _slots_by_key(index: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    """Return the filled slots ordered by their key, and where each key's slots start."""
    ordered, order = index.int().flatten().sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(keys + 1, device=index.device).int())
    return order[starts[0] :], (starts - starts[0])[:-1]


def _sampled_product(query: Tensor, key: Tensor, index: Tensor) -> Tensor:
    """Return the entries of `Q K^T` that the table names, for heads laid end to end."""
    heads, queries, slots = len(query), *index.shape
    if slots >= key.shape[1]:  # a sampled product cannot name more entries than there are
        named = index.clamp_min(0).expand(heads, -1, -1)
        return (query @ key.mT).gather(-1, named)
    wide = torch.promote_types(query.dtype, torch.float32)
    columns = _flat_positions(index, heads, key.shape[1]).flatten()
    starts = torch.arange(0, len(columns) + 1, slots, dtype=torch.int32, device=index.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its sparse layout a beta, once
        wanted = torch.sparse_csr_tensor(
            starts,
            columns,
            torch.zeros(len(columns), dtype=wide, device=index.device),
            (heads * queries, heads * key.shape[1]),
            check_invariants=False,
        )
    factors = query.flatten(0, 1).to(wide), key.flatten(0, 1).to(wide).mT
    product = torch.sparse.sampled_addmm(wanted, *factors, beta=0).values()
    return product.reshape(heads, queries, slots).to(query.dtype)
