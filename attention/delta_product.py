"""The gated delta rule applied to values, and backwards to weights, chunk by chunk."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.scan_product import fading, per_head

__all__ = ["delta_product", "delta_product_transposed"]

_CHUNK = 64
"""Positions that are solved at once."""

Factors = tuple[
    Float[Tensor, "*batch group position state"],
    Float[Tensor, "*batch group position state"],
    Float[Tensor, "*batch head position"],
    Float[Tensor, "*batch head position"],
]
"""Queries, keys, beta and log decays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """What happens among some positions in a row.

    Attributes:
        rows: The positions.
        query: Their queries.
        key: Their keys.
        beta: How much each rewrites, as a column.
        first: What is left at each of what stood before the chunk, as a column.
        last: What is left at the end of what each writes, as a column.
        reading: `L`, the products of queries and keys, faded.
        rewriting: `I + N`, unit triangular.
    """

    rows: slice
    query: Tensor
    key: Tensor
    beta: Tensor
    first: Tensor
    last: Tensor
    reading: Tensor
    rewriting: Tensor

    @property
    def whole(self) -> Tensor:
        """Return what is left at the end of what stood before."""
        return self.first[..., -1:, :]


def delta_product(
    factors: Factors, values: Float[Tensor, "*batch #head position dim"]
) -> Float[Tensor, "*batch head position dim"]:
    """Return `S_t^T q_t` of the states `S_t = g_t (I - b_t k_t k_t^T) S_(t-1) + b_t k_t v_t^T`.

    Example:
        >>> ones, beta = torch.ones(1, 2, 1), torch.tensor([[1.0, 0.5]])
        >>> values = torch.tensor([[[4.0], [2.0]]])
        >>> delta_product((ones, ones, beta, torch.zeros(1, 2)), values).flatten().tolist()
        [4.0, 3.0]
    """
    state, results = _empty_state(factors, values), []
    for chunk in _chunks(factors):
        known = chunk.first * (chunk.key @ state)
        written = _solved(chunk.rewriting, chunk.beta * (values[..., chunk.rows, :] - known))
        results.append(chunk.first * (chunk.query @ state) + chunk.reading @ written)
        state = chunk.whole * state + (chunk.last * chunk.key).mT @ written
    return torch.cat(results, dim=-2)


def delta_product_transposed(
    factors: Factors, weights: Float[Tensor, "*batch #head position dim"]
) -> Float[Tensor, "*batch head position dim"]:
    """Return what each position's value receives from the outputs' weights: the adjoint.

    Example:
        >>> ones, beta = torch.ones(1, 2, 1), torch.tensor([[1.0, 0.5]])
        >>> weights = torch.tensor([[[0.0], [1.0]]])
        >>> delta_product_transposed((ones, ones, beta, torch.zeros(1, 2)), weights).tolist()
        [[[0.5], [0.5]]]
    """
    state, results = _empty_state(factors, weights), []
    for chunk in _chunks(factors, backwards=True):
        own = weights[..., chunk.rows, :]
        asked = chunk.last * (chunk.key @ state) + chunk.reading.mT @ own
        received = chunk.beta * _solved(chunk.rewriting.mT, asked, upper=True)
        results.append(received)
        state = chunk.whole * state + (chunk.first * chunk.query).mT @ own
        state = state - (chunk.first * chunk.key).mT @ received
    return torch.cat(results[::-1], dim=-2)


def _chunks(factors: Factors, *, backwards: bool = False) -> Iterator[_Chunk]:
    query, key, beta, log_decay = factors
    heads, length = beta.shape[-2:]
    starts = range(0, length, _CHUNK)
    for start in reversed(starts) if backwards else starts:
        rows = slice(start, min(start + _CHUNK, length))
        queries, keys = (per_head(part[..., rows, :], heads) for part in (query, key))
        column = beta[..., rows].unsqueeze(-1)
        left, first = fading(log_decay[..., rows])
        again = (column * (keys @ keys.mT) * left).tril(-1)
        yield _Chunk(
            rows=rows,
            query=queries,
            key=keys,
            beta=column,
            first=first.unsqueeze(-1),
            last=left[..., -1, :].unsqueeze(-1),
            reading=(queries @ keys.mT) * left,
            rewriting=again + torch.eye(again.shape[-1], dtype=again.dtype, device=again.device),
        )


def _solved(triangle: Tensor, right: Tensor, *, upper: bool = False) -> Tensor:
    return torch.linalg.solve_triangular(triangle, right, upper=upper, unitriangular=True)


def _empty_state(factors: Factors, values: Tensor) -> Tensor:
    query, beta = factors[0], factors[2]
    return values.new_zeros(*beta.shape[:-1], query.shape[-1], values.shape[-1])
