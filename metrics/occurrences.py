"""`attention_to_matches`: what each query gives to keys of its own label, without the whole map.

Queries and keys are sorted by label, so that matching pairs lie in small tiles near a diagonal.
Cost and memory follow the number of matching pairs, not T^2, unless one label fills the sequence.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.rows import precise

__all__ = ["attention_to_matches"]

_ROWS = 256
_TILE = 2**22
"""Entries of the largest tile, unless a single query needs more."""


def attention_to_matches(
    attention: AttentionOperator,
    query_labels: Int[Tensor, " query"],
    key_labels: Int[Tensor, " key"],
    last_key: Int[Tensor, " query"],
) -> tuple[Float[Tensor, "*batch head query"], Int[Tensor, " query"]]:
    """Return the attention of each query to its matches, and how many matches it has.

    A key matches a query when it bears the same label and stands at or before the query's last key.

    Args:
        attention: Any operator.
        query_labels: The label that each query looks for; not negative.
        key_labels: The label that each key bears; not negative.
        last_key: The last key that may match, for each query; -1 for none.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.1, 0.2, 0.3, 0.4]]]))
        >>> mass, matches = attention_to_matches(
        ...     A, torch.tensor([7]), torch.tensor([7, 5, 7, 7]), torch.tensor([2])
        ... )
        >>> round(float(mass), 4), matches.tolist()
        (0.4, [2])
    """
    query_labels, key_labels, last_key = (x.cpu() for x in (query_labels, key_labels, last_key))
    keys = key_labels.argsort(stable=True)
    # One number sorts by label, then by position: the matches of a query are a run of sorted keys.
    span = attention.keys + 1
    places = key_labels[keys] * span + keys
    first = torch.searchsorted(places, query_labels * span)
    stop = torch.searchsorted(places, query_labels * span + last_key, right=True)
    matches = (stop - first).clamp_min(0)
    queries = query_labels.argsort(stable=True)
    queries = queries[matches[queries] > 0]
    mass = torch.zeros(
        attention.shape[:-1],
        dtype=torch.promote_types(attention.dtype, torch.float32),
        device=attention.device,
    )
    for pack in _packs(queries, first, stop, _TILE // max(1, attention.shape[:-2].numel())):
        low, high = int(first[pack].min()), int(stop[pack].max())
        column = torch.arange(low, high)
        chosen = (column >= first[pack][:, None]) & (column < stop[pack][:, None])
        tile = precise(attention.tile(pack, keys[low:high]))
        found = torch.where(chosen.to(tile.device), tile, 0).sum(-1)
        mass = mass.index_copy(-1, pack.to(mass.device), found)
    return mass, matches


def _packs(queries: Tensor, first: Tensor, stop: Tensor, budget: int) -> Iterator[Tensor]:
    """Yield runs of sorted queries whose tile stays in the budget, one query at least."""
    start = 0
    while start < len(queries):
        rows = _ROWS
        pack = queries[start : start + rows]
        while rows > 1 and len(pack) * int(stop[pack].max() - first[pack].min()) > budget:
            rows //= 2
            pack = queries[start : start + rows]
        yield pack
        start += rows
