"""Columns of softmax attention: by tiles, by the code for rows, and by a blocked pass."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.scores import Scores
from attnscope.attention.tile_statistics import column_sums, serves

__all__ = ["received", "transposed", "transposed_by_blocks"]


def received(
    scores: Scores,
    normalizer: Float[Tensor, "batch head query"],
    weights: Float[Tensor, "batch head query dim"],
) -> Float[Tensor, "batch head key dim"]:
    """Return `A^T U` of scores that are products alone.

    One fused call whose queries are the keys, in 32 bits; on a GPU, where the weights are one
    column and our own kernels serve, a pass over tiles of the factors as they are.
    """
    if weights.shape[-1] == 1 and serves(scores, normalizer, weights):
        return column_sums(scores, normalizer, weights.squeeze(-1)).unsqueeze(-1)
    output, mass = transposed(scores, normalizer).attend(weights)
    return output * mass.exp().unsqueeze(-1)


def transposed(scores: Scores, normalizer: Float[Tensor, "batch head query"]) -> Scores:
    """Return scores of keys by queries whose exponentials are the map itself.

    With queries `[scale k_j, 1]` and keys `[q_t, -lse_t]` they are `s_tj - lse_t = log A_tj`, so
    that their own normalizer is the log of a column sum. It takes scores that are products alone.
    """
    precise = scores.precise()
    group = precise.query.shape[1] // precise.key.shape[1]
    key = precise.key.repeat_interleave(group, dim=1) * scores.scale
    total = normalizer.masked_fill(normalizer == -torch.inf, 0.0).unsqueeze(-1)
    return Scores(
        query=torch.cat([key, torch.ones_like(key[..., :1])], dim=-1),
        key=torch.cat([precise.query, -total], dim=-1),
        scale=1.0,
        mask=scores.mask.transpose(),
    )


def transposed_by_blocks(
    blocks: Iterable[tuple[slice, Float[Tensor, "*batch head some_query key"]]],
    weights: Float[Tensor, "*batch head query dim"],
    keys: int,
) -> Float[Tensor, "*batch head key dim"]:
    """Return `A^T U` from the rows of a map, block by block."""
    total = weights.new_zeros(*weights.shape[:-2], keys, weights.shape[-1])
    for block, pattern in blocks:
        total = total + pattern.mT @ weights[..., block, :]
    return total
