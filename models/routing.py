"""Routing attention: tokens attend within clusters that are found by their content.

Queries and keys are normalized to `norm sqrt(dim)` and compared with learned centroids; a token
attends to tokens of its own cluster. With c clusters of about T / c members each,
O(T c dim + T^2 dim / c) time, least at `c = sqrt(T)`.

`published_routing` is the published rule: each cluster takes the `window` tokens of the whole
sequence that are nearest to it, so that a token may be in several clusters (its readings are
averaged) or in none (it reads nothing), and attends to the members of lower or equal rank. Which
tokens are members depends on tokens to come: the map is lower triangular, but its entries know the
future. `future_leak` measures that. `causal_routing`, the default (our reading), assigns each token
to its nearest centroid and lets it read the last `window` members up to itself: O(T window).

Reference: Roy et al. 2021, arXiv:2003.05997, section 4, and the authors' code.
"""

from collections.abc import Callable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from attnscope.attention import AttentionOperator, IndexedAttention, Mixing, indexed_scores
from attnscope.models.routing_clusters import (
    OnlineClusters,
    nearest_centroid,
    normalized_vectors,
)

__all__ = ["Routing", "RoutingAttention", "causal_routing", "future_leak", "published_routing"]

Routing = Callable[[Tensor, Tensor, Tensor, int], IndexedAttention]
"""A rule of membership: normalized queries and keys, centroids and window give the operator."""

_SHARE = 0.01
"""What is added to the number of clusters that a token's readings are divided by."""


def causal_routing(
    query: Float[Tensor, "*batch head token dim"],
    key: Float[Tensor, "*batch head token dim"],
    centroids: Float[Tensor, "head cluster dim"],
    window: int,
) -> IndexedAttention:
    """Return attention to the last `window` keys of the query's cluster, up to its own position.

    Example:
        >>> vectors = torch.tensor([[[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]]])
        >>> A = causal_routing(vectors, vectors, torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]), 2)
        >>> A.dense().tolist()
        [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]]
    """
    cluster, key_cluster = (nearest_centroid(side, centroids) for side in (query, key))
    order, total = _grouped(key_cluster, centroids.shape[-2])
    start = (total.cumsum(-1) - total).gather(-1, cluster).unsqueeze(-1)
    members = one_hot(key_cluster, centroids.shape[-2]).cumsum(-2)  # up to each position
    count = members.gather(-1, cluster.unsqueeze(-1))
    back = torch.arange(1, min(window, key.shape[-2]) + 1, device=query.device)
    place = (start + count - back).clamp_min(0)
    index = order.gather(-1, place.flatten(-2)).unflatten(-1, place.shape[-2:])
    index = index.masked_fill(back > count, -1)
    scores = indexed_scores(query, key, index)
    alone = (index < 0).all(-1, keepdim=True)
    weights = scores.masked_fill(alone, 0.0).softmax(-1).masked_fill(index < 0, 0.0)
    return IndexedAttention(weights, index, key.shape[-2], offset=0)


def published_routing(
    query: Float[Tensor, "*batch head token dim"],
    key: Float[Tensor, "*batch head token dim"],
    centroids: Float[Tensor, "head cluster dim"],
    window: int,
) -> IndexedAttention:
    """Return attention within balanced clusters, averaged over the clusters that a query is in.

    A row sums to `n / (n + 0.01)` for a query of n clusters. Ranks are compared within a cluster,
    so that queries and keys that differ may also read a key ahead of them.

    Example:
        >>> vectors = torch.tensor([[[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]])
        >>> A = published_routing(vectors, vectors, vectors[:, :2], 2)
        >>> [round(1.01 * x, 4) for x in A.rows([2]).flatten().tolist()]
        [0.5, 0.0, 0.5, 0.0]
    """
    width = min(window, query.shape[-2])
    query_member = _balanced(query, centroids, width)
    key_member = _balanced(key, centroids, width)
    scores = _taken(query, query_member) @ _taken(key, key_member).mT
    hidden = torch.ones(width, width, dtype=torch.bool, device=query.device).triu(1)
    pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1).flatten(-3, -2)
    keys = repeat(key_member, "... cluster slot -> ... (cluster row) slot", row=width)
    keys = keys.masked_fill(hidden.repeat(centroids.shape[-2], 1), -1)
    order, total = _grouped(query_member.flatten(-2), query.shape[-2])
    start, count = (total.cumsum(-1) - total).unsqueeze(-1), total.unsqueeze(-1)
    turn = torch.arange(max(1, int(total.max())), device=query.device)  # clusters of one token
    place = (start + turn).clamp_max(order.shape[-1] - 1)
    row = order.gather(-1, place.flatten(-2))
    absent = repeat(turn >= count, "... token turn -> ... token (turn slot)", slot=width)
    index = _rows(keys, row, place.shape).masked_fill(absent, -1)
    weights = _rows(pattern, row, place.shape).masked_fill(absent, 0.0) / (count + _SHARE)
    if index.shape[-1] > key.shape[-2]:
        weights, index = _merged(weights, index, key.shape[-2])
    return IndexedAttention(weights, index, key.shape[-2], offset=0)


class RoutingAttention(nn.Module):
    """Routing heads of a decoder; a token's query is its key, so that it sees itself first.

    Args:
        channels: Width of a token.
        heads: Number of heads.
        dim: Width of a head.
        clusters: Clusters of each head.
        window: Members of a cluster that are read at most.
        routing: The rule of membership: `causal_routing` or `published_routing`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        dim: int,
        clusters: int,
        window: int,
        routing: Routing = causal_routing,
    ) -> None:
        super().__init__()
        self.heads, self.window, self.routing = heads, window, routing
        self.query_value = nn.Linear(channels, 2 * heads * dim, bias=False)
        self.clusters = OnlineClusters(heads, clusters, dim)
        self.mixing = Mixing()
        self.commitment: Float[Tensor, ""] | None = None

    def forward(
        self, features: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token width"]:
        """Return what the heads read, side by side; while training the centroids learn, too.

        `commitment` then holds the mean squared difference of queries and their centroids.
        """
        query, value = self._query_value(features)
        attention = self.routing(query, query, self.clusters.centroids, self.window)
        if self.training:
            self.commitment = self.clusters.commitment(query)
            self.clusters.learn(query)
        output = self.mixing(attention, value)
        return rearrange(output, "batch head token dim -> batch token (head dim)")

    def attention(self, features: Float[Tensor, "batch token channel"]) -> IndexedAttention:
        """Return the operator of the tokens, and learn nothing."""
        query, _ = self._query_value(features)
        return self.routing(query, query, self.clusters.centroids, self.window)

    def _query_value(self, features: Tensor) -> tuple[Tensor, Tensor]:
        query, value = rearrange(
            self.query_value(features),
            "batch token (factor head dim) -> factor batch head token dim",
            factor=2,
            head=self.heads,
        )
        return normalized_vectors(query), value


def future_leak(
    attend: Callable[[Tensor], AttentionOperator],
    features: Float[Tensor, "*axes token channel"],
    cut: int,
) -> Float[Tensor, "*batch_head"]:
    """Return how much rows before a cut change when the tokens behind it do.

    The mean over the queries before `cut` of `sum_j |a_tj - a'_tj| / 2`, where `a'` is the map with
    the signs of all later tokens turned. 0 for every causal mechanism; 1 where earlier tokens read
    entirely other keys. Our own measure.

    Raises:
        ValueError: The cut leaves no token on one of its sides.
    """
    tokens = features.shape[-2]
    if not 0 < cut < tokens:
        raise ValueError(f"cut is {cut}; it lies between 1 and {tokens - 1} for {tokens} tokens")
    turned = torch.cat([features[..., :cut, :], -features[..., cut:, :]], dim=-2)
    before, after = (attend(tokens).rows(slice(cut)) for tokens in (features, turned))
    return (before - after).abs().sum(-1).mean(-1) / 2


def _balanced(
    vectors: Float[Tensor, "*batch head token dim"],
    centroids: Float[Tensor, "head cluster dim"],
    width: int,
) -> Int[Tensor, "*batch head cluster slot"]:
    """Return the positions of the tokens nearest to each centroid, in their order."""
    return (vectors @ centroids.mT).mT.topk(width, dim=-1).indices.sort(-1).values


def _taken(
    vectors: Float[Tensor, "*batch head token dim"],
    member: Int[Tensor, "*batch head cluster slot"],
) -> Float[Tensor, "*batch head cluster slot dim"]:
    flat = member.flatten(-2).unsqueeze(-1).expand(*vectors.shape[:-2], -1, vectors.shape[-1])
    return vectors.gather(-2, flat).unflatten(-2, member.shape[-2:])


def _rows(table: Tensor, row: Tensor, shape: torch.Size) -> Tensor:
    """Return rows of a table, those of one token side by side."""
    chosen = table.gather(-2, row.unsqueeze(-1).expand(*row.shape, table.shape[-1]))
    return chosen.unflatten(-2, shape[-2:]).flatten(-2)


def _merged(weights: Tensor, index: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    """Return one slot for each key, where clusters that overlap have more slots than that."""
    shape = (*index.shape[:-1], keys)
    summed = weights.new_zeros(shape).scatter_add(-1, index.clamp_min(0), weights)
    read = index.new_zeros(shape).scatter_reduce(
        -1, index.clamp_min(0), (index >= 0).long(), "amax"
    )
    return summed, torch.where(read > 0, torch.arange(keys, device=index.device), -1)


def _grouped(
    group: Int[Tensor, "*batch head item"], groups: int
) -> tuple[Int[Tensor, "*batch head item"], Int[Tensor, "*batch head group"]]:
    """Return the items in the order of their groups, and how many each group has."""
    total = group.new_zeros(*group.shape[:-1], groups)
    total = total.scatter_add(-1, group, torch.ones_like(group))
    return group.argsort(dim=-1, stable=True), total
