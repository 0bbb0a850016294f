"""The softmax of queries over their neighborhoods, with or without relative positions.

O(N prod(K)) memory for N positions and windows of K keys per axis.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.attention import IndexedAttention, indexed_scores
from attnscope.models.neighborhood_index import Neighborhood

__all__ = ["neighborhood_pattern"]


def neighborhood_pattern(
    query: Float[Tensor, "*batch head position dim"],
    key: Float[Tensor, "*batch head position dim"],
    neighborhood: Neighborhood,
    relative_position: Float[Tensor, "head *distance"] | None = None,
) -> IndexedAttention:
    """Return the softmax over each query's neighborhood of the products with its keys.

    Args:
        query: Scaled queries in raster order.
        key: Keys in raster order.
        neighborhood: The grid and its neighborhoods.
        relative_position: Table of `2 K - 1` logits per axis, from the farthest key before its
            query to the farthest behind it.

    Example:
        >>> query = key = torch.zeros(1, 4, 1)
        >>> A = neighborhood_pattern(query, key, Neighborhood.of((4,), 2, causal=True))
        >>> A.dense().tolist()[0][:3]
        [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
    """
    keys = _table(neighborhood, "keys", query.device)
    scores = indexed_scores(query, key, keys)
    if relative_position is not None:
        distances = _table(neighborhood, "distances", query.device)
        scores = scores + relative_position.flatten(1)[:, distances]
    return IndexedAttention(
        scores.softmax(-1),
        keys,
        neighborhood.positions,
        offset=0,
        query_axis="patch" if len(neighborhood.axes) > 1 else "token",
        key_axis="patch" if len(neighborhood.axes) > 1 else "token",
    )


@lru_cache(maxsize=16)  # the layers of a network ask for the same few tables again and again
def _table(
    neighborhood: Neighborhood, kind: str, device: torch.device
) -> Int[Tensor, "query slot"]:
    return getattr(neighborhood, kind)().to(device)
