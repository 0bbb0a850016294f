"""Routing attention: membership by hand and by loops, what leaks, and the model around it."""

from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.metrics import divergence_between
from attnscope.models.routing import (
    Routing,
    RoutingAttention,
    causal_routing,
    future_leak,
    published_routing,
)
from attnscope.models.routing_clusters import OnlineClusters, normalized_vectors
from attnscope.models.routing_network import (
    ROUTING_VARIANTS,
    LocalAttention,
    RoutingTransformer,
    RoutingVariant,
)
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

SMALL = RoutingVariant(
    tokens=40,
    channels=8,
    embedding=4,
    hidden=12,
    depth=2,
    local_heads=2,
    routing_heads=2,
    clusters=3,
    window=4,
    block=5,
)


Slow = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def by_hand() -> tuple[Tensor, Tensor]:
    """Return four tokens, of which the even ones look one way, and a centroid for each way."""
    tokens = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 2.0]]).double()
    return normalized_vectors(tokens[None]), torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]).double()


def test_membership_worked_by_hand() -> None:
    """Clusters {0, 2} and {1, 3}; equal logits; each token in one cluster, so 1 / 1.01."""
    vectors, centroids = by_hand()
    expected = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]])
    for routing, share in [(published_routing, 1.01), (causal_routing, 1.0)]:
        attention = routing(vectors, vectors, centroids, 2)
        torch.testing.assert_close(
            attention.dense()[0], expected.double() / share, atol=1e-5, rtol=0
        )
        assert attention.causal
    values = normal(0, 1, 4, 3)
    output = published_routing(vectors, vectors, centroids, 2).apply(values)
    torch.testing.assert_close(output[0, 0], values[0, 0] / 1.01)


def slow_published(query: Tensor, key: Tensor, centroids: Tensor, window: int) -> Tensor:
    """Return the map of one head by loops over clusters and ranks."""
    tokens = len(query)
    total, count = torch.zeros(tokens, tokens).double(), torch.zeros(tokens)
    for centroid in centroids:
        near = [
            sorted(torch.argsort(side @ centroid, descending=True)[:window].tolist())
            for side in (query, key)
        ]
        for rank, i in enumerate(near[0]):
            visible = near[1][: rank + 1]
            total[i, visible] += torch.softmax(query[i] @ key[visible].T, dim=0)
            count[i] += 1
    return total / (count + 0.01)[:, None]


def slow_causal(query: Tensor, key: Tensor, centroids: Tensor, window: int) -> Tensor:
    """Return the map of one head by a loop over queries."""
    pattern = torch.zeros(len(query), len(query)).double()
    own, its = (query @ centroids.T).argmax(-1), (key @ centroids.T).argmax(-1)
    for i in range(len(query)):
        visible = [j for j in range(i + 1) if its[j] == own[i]][-window:]
        if visible:
            pattern[i, visible] = torch.softmax(query[i] @ key[visible].T, dim=0)
    return pattern


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(causal_routing, slow_causal), (published_routing, slow_published)]),
    st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(1, 25)),
    st.booleans(),
)
def test_the_map_is_the_rule(
    seed: int, rules: tuple[Routing, Slow], sizes: tuple[int, int, int], shared: bool
) -> None:
    (routing, slow), (tokens, clusters, window) = rules, sizes
    query = normalized_vectors(normal(seed, 2, 3, tokens, 4))
    key = query if shared else normalized_vectors(normal(seed + 1, 2, 3, tokens, 4))
    centroids = normal(seed + 2, 3, clusters, 4)
    attention = routing(query, key, centroids, window)
    expected = [
        [slow(query[b, h], key[b, h], centroids[h], window) for h in range(3)] for b in range(2)
    ]
    pattern = torch.stack([torch.stack(heads) for heads in expected])
    torch.testing.assert_close(attention.dense(), pattern)
    values = normal(seed + 3, 2, 3, tokens, 2)
    torch.testing.assert_close(attention.apply(values), pattern @ values)
    if shared:
        assert attention.causal
    if routing is causal_routing:
        assert attention.stochastic
        assert attention.causal


def module(routing: Routing) -> RoutingAttention:
    torch.manual_seed(0)
    return RoutingAttention(8, 2, dim=4, clusters=3, window=4, routing=routing).double()


def test_the_published_rule_knows_the_future_and_ours_does_not() -> None:
    features = normal(0, 2, 24, 8)
    leaks = {
        routing: future_leak(module(routing).eval().attention, features, 12)
        for routing in (causal_routing, published_routing)
    }
    assert torch.equal(leaks[causal_routing], torch.zeros(2, 2).double())
    assert (leaks[published_routing] > 0.05).all()
    assert (leaks[published_routing] <= 1).all()


def test_a_leak_worked_by_hand() -> None:
    """A cluster of one takes the longer second token, and the first once that is turned away."""
    centroids = torch.tensor([[[1.0, 0.0]]]).double()
    tokens = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]]).double()
    leak = future_leak(lambda x: published_routing(x, x, centroids, 1), tokens, 1)
    assert leak.item() == pytest.approx(1 / 1.01 / 2)  # a row of 1 / 1.01 beside an empty one
    assert future_leak(lambda x: causal_routing(x, x, centroids, 1), tokens, 1).item() == 0
    with pytest.raises(ValueError, match="cut is 2; it lies between 1 and 1 for 2 tokens"):
        future_leak(lambda x: causal_routing(x, x, centroids, 1), tokens, 2)


@pytest.mark.parametrize("routing", [causal_routing, published_routing])
def test_gradients_are_those_of_finite_differences(routing: Routing) -> None:
    attention = module(routing).eval()
    assert torch.autograd.gradcheck(attention, normal(0, 1, 6, 8).requires_grad_())


def test_centroids_worked_by_hand() -> None:
    """One cluster at (1, 0), decay 0.9, one vector x: sums 0.9 mu + 0.1 x, counts 0.1."""
    clusters = OnlineClusters(1, 1, 2, decay=0.9).double()
    for buffer in (clusters.centroids, clusters.sums):
        buffer.copy_(torch.tensor([[[1.0, 0.0]]]))
    assert clusters.commitment(torch.tensor([[[[0.0, 2.0]]]]).double()).item() == 2.5
    clusters.learn(torch.tensor([[[[0.0, 2.0]]]]).double())
    assert clusters.sums.flatten().tolist() == pytest.approx([0.9, 0.2])
    assert clusters.counts.item() == pytest.approx(0.1)
    assert clusters.centroids.flatten().tolist() == pytest.approx([9.0, 2.0])  # over-scaled


def test_counts_are_smoothed_and_centroids_settle_on_their_vectors() -> None:
    torch.manual_seed(0)
    clusters = OnlineClusters(1, 2, 2, decay=0.5).double()
    vectors = torch.tensor([[[[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]]]).double()
    for _ in range(60):
        clusters.learn(vectors)
    places = {tuple(round(x, 4) for x in centroid) for centroid in clusters.centroids[0].tolist()}
    assert places == {(1.0, -1.0), (-1.0, 1.0)}
    assert clusters.counts.sum().item() == pytest.approx(3.0)


def test_centroids_learn_in_training_alone() -> None:
    attention, features = module(causal_routing), normal(0, 2, 9, 8)
    before = attention.clusters.centroids.clone()
    attention.eval()(features)
    assert attention.commitment is None
    assert torch.equal(attention.clusters.centroids, before)
    attention.train()(features)
    assert attention.commitment is not None
    assert not torch.equal(attention.clusters.centroids, before)


@pytest.mark.parametrize("tokens", [1, 5, 13])
def test_local_heads_read_their_block_and_the_one_before(tokens: int) -> None:
    torch.manual_seed(0)
    attention, features = LocalAttention(4, 2, dim=3, block=5).double(), normal(0, 2, tokens, 4)
    query, key, value = attention.query_key_value(features).chunk(3, dim=-1)
    rows = []
    for item in range(2):
        for i in range(tokens):
            for head in (slice(0, 3), slice(3, 6)):
                near = slice(max(0, i // 5 * 5 - 5), i + 1)
                scores = key[item, near, head] @ query[item, i, head] * 3**-0.5
                rows.append(scores.softmax(0) @ value[item, near, head])
    torch.testing.assert_close(attention(features), torch.stack(rows).reshape(2, tokens, 6))


def small(routing: Routing = causal_routing) -> RoutingTransformer:
    torch.manual_seed(0)
    return RoutingTransformer(SMALL, 11, routing)


def test_published_configurations() -> None:
    heads = {}
    for name, variant in ROUTING_VARIANTS.items():
        with torch.device("meta"):
            model = RoutingTransformer(replace(variant, depth=2, first_routing=1), 100)
        local = [layer.get_submodule("local_attention") for layer in model.layers]
        heads[name] = [attention.heads for attention in local]  # pyright: ignore[reportAttributeAccessIssue] - a LocalAttention
    assert heads == {"wikitext103": [16, 8], "enwik8": [8, 4], "pg19": [8, 6]}
    assert {variant.window for variant in ROUTING_VARIANTS.values()} == {512}
    assert ROUTING_VARIANTS["pg19"].first_routing == ROUTING_VARIANTS["pg19"].depth - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_trains(dtype: torch.dtype) -> None:
    model = small().to(dtype).train()
    with pytest.raises(ValueError, match="forward pass in training mode first"):
        model.commitment_loss()
    logits = model(torch.arange(24).remainder(11).reshape(2, 12))
    (logits.logsumexp(-1).sum() + model.commitment_loss()).backward()
    assert logits.shape == (2, 12, 11)
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert unused == set()


@pytest.mark.parametrize(("routing", "leaks"), [(causal_routing, False), (published_routing, True)])
def test_a_later_token_changes_earlier_logits_under_the_published_rule_alone(
    routing: Routing, leaks: bool
) -> None:
    model = small(routing).double().eval()
    ids = torch.arange(40).remainder(11)[None]
    changed = []
    for position in (10, 20, 30):
        other = ids.clone()
        other[0, position:] = (other[0, position:] + 5) % 11
        with torch.no_grad():
            moved = (model(ids) - model(other))[0, :position].abs().max()
        changed.append(bool(moved > 1e-9))
    assert any(changed) == leaks


def test_a_sequence_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="41 tokens; this model has 40 positions"):
        small()(torch.zeros(1, 41, dtype=torch.long))


@pytest.mark.parametrize("routing", [causal_routing, published_routing])
def test_capture_keeps_the_contract(routing: Routing, tmp_path: Path) -> None:
    ids = torch.arange(17).remainder(11)[None]
    trace = assert_capture_keeps_the_contract(small(routing), {"input_ids": ids}, tmp_path)
    assert trace.stacks == ("layers.local_attention.mixing", "layers.routing_attention.mixing")
    local, routed = (trace.observations[place].attention for place in (0, 1))
    divergence = divergence_between(local, routed.normalized())
    assert ((divergence > 0) & (divergence < log(2))).all()
