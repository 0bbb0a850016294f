"""The lower triangle of a low-rank matrix, applied to values without the matrix."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["causal_product"]

_CHUNK = 64
"""Rows whose triangle is built: the whole costs O(T) such rows and T / 64 states."""


def causal_product(
    left: Float[Tensor, "*batch #head query dim"],
    right: Float[Tensor, "*batch #head key dim"],
    values: Float[Tensor, "*batch #head key width"],
    offset: int = 0,
) -> Float[Tensor, "*batch head query width"]:
    """Return `o_t = sum over j <= t + offset of (left_t . right_j) v_j`.

    The keys' outer products `right_j v_j^T` are summed chunk by chunk; a query reads the sum of the
    chunks before its own and, within its own, the triangle of products. Time
    O(T dim width + T 64 (dim + width)), memory O(T (64 + dim width / 64)).

    Example:
        >>> ones = torch.ones(1, 3, 1)
        >>> causal_product(ones, ones, ones).flatten().tolist()
        [1.0, 2.0, 3.0]
        >>> causal_product(ones, ones, ones, offset=-1).flatten().tolist()
        [0.0, 1.0, 2.0]
    """
    queries = left.shape[-2]
    chunk = max(1, min(_CHUNK, queries))
    tail = -queries % chunk
    rows = pad(left, (0, 0, 0, tail)).unflatten(-2, (-1, chunk))
    # Key t + offset moves to row t; rows that are nobody's are zero. Keys before the first query
    # are seen by all: they are the first state. Keys behind the last query are seen by none.
    ahead = min(queries, max(0, -offset))
    aligned = []
    for factor in (right, values):
        placed = factor[..., max(0, offset) : max(0, queries + offset), :]
        behind = queries + tail - ahead - placed.shape[-2]
        aligned.append(pad(placed, (0, 0, ahead, behind)).unflatten(-2, (-1, chunk)))
    first = right[..., : max(0, offset), :].mT @ values[..., : max(0, offset), :]
    states = aligned[0].mT @ aligned[1]
    before = torch.cat([first.unsqueeze(-3), states[..., :-1, :, :]], dim=-3).cumsum(-3)
    result = (rows @ aligned[0].mT).tril() @ aligned[1] + rows @ before
    return result.flatten(-3, -2)[..., :queries, :]
