"""`marginals`: what the keys of a softmax map receive and how spread its rows are, in one pass.

On a processor a fused call for the column sums and another for the entropies would each multiply
values that nobody asked for. One pass over tiles that stay in the cache needs the products of
queries and keys and their exponentials once, which no way to either number can do without.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.scores import Scores

__all__ = ["Marginals", "marginals", "pays"]

_TILE_KEYS = 512
_TILE_ENTRIES = 2**17
"""Entries of a tile for each thread: with its exponentials they fit a core's second-level cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marginals:
    """Sums over a map.

    Attributes:
        received: `sum_t A_tj`, the mass of each column.
        entropy: `-sum_j A_tj ln A_tj`, in nats; NaN for a row without keys.
    """

    received: Float[Tensor, "batch head key"]
    entropy: Float[Tensor, "batch head query"]


def pays(scores: Scores) -> bool:
    """Return whether the pass takes these scores and is the fastest: products, on a processor."""
    return scores.is_plain and scores.query.device.type == "cpu"


def marginals(scores: Scores, normalizer: Float[Tensor, "batch head query"]) -> Marginals:
    """Return the column sums and row entropies of `A_tj = exp(s_tj - lse_t)`, with O(T) memory.

    No gradient is followed.

    Args:
        scores: Scores that are products alone, under any mask.
        normalizer: `lse_t`; with a learned sink included, entropies are those of parts of rows.

    Example:
        >>> from attnscope.attention import Mask
        >>> nothing = torch.zeros(1, 1, 3, 2)
        >>> flat = Scores(query=nothing, key=nothing, scale=1.0, mask=Mask(after=0))
        >>> seen = marginals(flat, torch.tensor([[[1.0, 2.0, 3.0]]]).log())  # uniform rows
        >>> [round(float(x), 4) for x in seen.received[0, 0]]  # 1 + 1/2 + 1/3, 1/2 + 1/3, 1/3
        [1.8333, 0.8333, 0.3333]
        >>> [round(float(x), 4) for x in seen.entropy.exp()[0, 0]]
        [1.0, 2.0, 3.0]
    """
    empty = normalizer == -torch.inf
    received = normalizer.new_zeros(*scores.shape[:2], scores.shape[3])
    entropy = torch.zeros_like(normalizer)
    for rows, keys, logarithm in _tiles(scores.precise(), normalizer.masked_fill(empty, 0.0)):
        entries = torch.exp2(logarithm)
        if not scores.mask.leaves_open(rows, keys):
            entries.masked_fill_(_hidden(scores, rows, keys), 0.0)
        received[..., keys] += entries.sum(2)
        entropy[..., rows] -= entries.mul_(logarithm).sum(3)
    nats = (entropy * math.log(2)).clamp_min(0.0).masked_fill(empty, torch.nan)
    return Marginals(received=received, entropy=nats)


def _tiles(
    scores: Scores, normalizer: Float[Tensor, "batch head query"]
) -> Iterator[tuple[slice, slice, Float[Tensor, "batch head some_query some_key"]]]:
    """Yield `log2 A_tj` of blocks of queries and keys; what the mask hides is any number.

    Powers of 2, because `exp2` takes a third of the time of `exp`. The query heads of a group are
    rows of one product with the key that they share.
    """
    batch, heads, queries, keys = scores.shape
    factor, shared = scores.scale / math.log(2), scores.key.flatten(0, 1)
    entries = _TILE_ENTRIES * torch.get_num_threads()
    step = max(16, entries // (batch * heads * min(keys, _TILE_KEYS)))
    for start in range(0, queries, step):
        rows = slice(start, min(start + step, queries))
        query = scores.query[:, :, rows].reshape(len(shared), -1, scores.query.shape[-1])
        added = normalizer[:, :, rows].reshape(len(shared), -1, 1)
        low, high = scores.mask.key_span(rows.start, rows.stop, keys=keys)
        for first in range(low, high, _TILE_KEYS):
            seen = slice(first, min(first + _TILE_KEYS, high))
            product = torch.baddbmm(
                added, query, shared[:, seen].mT, beta=-1 / math.log(2), alpha=factor
            )
            yield rows, seen, product.view(batch, heads, -1, product.shape[-1])


def _hidden(scores: Scores, rows: slice, keys: slice) -> Tensor:
    device = scores.query.device
    query = torch.arange(rows.start, rows.stop, device=device)
    visible = scores.mask.tile(query, torch.arange(keys.start, keys.stop, device=device))
    return ~visible.reshape(-1, 1, *visible.shape[-2:])
