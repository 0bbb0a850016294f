"""Relevance of self- and cross-attention, row by row, against whole matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import (
    MetricError,
    chefer_relevance,
    cross_relevance,
    gradient_rollout,
    normalized_relevance,
    positive_gradient,
)
from tests.metrics.patterns import close, normal, pattern

HAND = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]])
GRADIENT = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])


def factored(seed: int, heads: int, queries: int, keys: int, shared: int = 1) -> tuple:
    """Return a map with its values and dL/dz, and its influence as a matrix."""
    attention = DenseAttention(pattern(seed, heads, queries, keys, causal=queries == keys))
    value, gradient = normal(seed + 1, shared, keys, 3), normal(seed + 2, heads, queries, 3)
    wide = value.repeat_interleave(heads // shared, 0)
    slow = (attention.dense() * (gradient @ wide.mT)).clamp_min(0)
    return positive_gradient(attention, value, gradient), slow


def test_the_case_worked_by_hand() -> None:
    layer = positive_gradient(DenseAttention(HAND), torch.eye(2)[None], GRADIENT)
    close(layer.dense(), [[[0.5, 0.0], [0.0, 0.0]]])
    close(chefer_relevance([layer, layer], query=0), [2.25, 0.0])
    close(chefer_relevance([layer, layer]), [0.0, 1.0])
    close(gradient_rollout([layer, layer], query=0), [1.0, 0.0])


def test_the_clamp_comes_before_the_mean_over_heads() -> None:
    pattern = torch.ones(2, 1, 1)
    layer = positive_gradient(
        DenseAttention(pattern), torch.ones(1, 1, 1), torch.tensor([[[1.0]], [[-3.0]]])
    )
    close(layer.mean_heads().dense(), [[[0.5]]])


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.sampled_from([1, 2]), st.integers(0, 99))
def test_rows_are_those_of_the_product(depth: int, tokens: int, shared: int, seed: int) -> None:
    layers, maps = zip(
        *(factored(seed + layer, 2, tokens, tokens, shared) for layer in range(depth)), strict=True
    )
    one = torch.eye(tokens, dtype=torch.float64)
    relevance, rolled = one, one
    for influence in (each.mean(0) for each in maps):
        relevance = relevance + influence @ relevance
        mixed = influence + one
        rolled = mixed / mixed.sum(-1, keepdim=True) @ rolled
    for query in (0, -1):
        close(chefer_relevance(layers, query), relevance[query])
        shares = gradient_rollout(layers, query)
        close(shares, rolled[query])
        close(shares.sum(), 1.0)
    assert bool((chefer_relevance(layers) >= 0).all())


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(0, 99))
def test_cross_relevance_is_that_of_the_rules_on_matrices(
    depth: int, encoders: int, seed: int
) -> None:
    tokens, keys = 4, 3
    own = [factored(seed + layer, 2, tokens, tokens) for layer in range(depth)]
    read = [factored(seed + 50 + layer, 2, tokens, keys) for layer in range(depth)]
    inner = [factored(seed + 90 + layer, 2, keys, keys) for layer in range(encoders)]
    outer = torch.eye(keys, dtype=torch.float64)
    for _, influence in inner:
        outer = outer + influence.mean(0) @ outer
    relevance = torch.eye(tokens, dtype=torch.float64)
    crossing = torch.zeros(tokens, keys, dtype=torch.float64)
    for (_, self_map), (_, cross_map) in zip(own, read, strict=True):
        relevance = relevance + self_map.mean(0) @ relevance
        crossing = crossing + self_map.mean(0) @ crossing
        crossing = crossing + (
            normalized_relevance(relevance).mT @ cross_map.mean(0) @ normalized_relevance(outer)
        )
    found = cross_relevance(
        [operator for operator, _ in own],
        [(number + 1, operator) for number, (operator, _) in enumerate(read)],
        [operator for operator, _ in inner],
    )
    close(found.dense()[0], crossing, 1e-8)
    close(found.rows([-1])[0, 0], crossing[-1], 1e-8)


def test_one_token_of_a_long_sequence_takes_no_map() -> None:
    length = 3_000
    ones = torch.ones(1, length, 1)
    layer = positive_gradient(SoftmaxAttention(0 * ones, ones), ones, ones)
    relevance = chefer_relevance([layer, layer], query=2)
    # each row of Abar is uniform over what it sees: (I + A)^2 = I + 2 A + A^2
    square = torch.tensor([1 + 1 / 2 + 1 / 3, 1 / 2 + 1 / 3, 1 / 3]) / 3
    close(relevance[:3], torch.tensor([0.0, 0.0, 1.0]) + 2 / 3 + square)
    assert float(relevance[3:].abs().max()) == 0


def test_refuses_what_it_is_not_defined_for() -> None:
    layer, _ = factored(0, 2, 3, 3)
    with pytest.raises(MetricError, match="chefer_relevance needs the layers of a model"):
        chefer_relevance([])
    with pytest.raises(MetricError, match="layer 1 is"):
        gradient_rollout([layer, factored(0, 2, 4, 4)[0]])
    with pytest.raises(MetricError, match="nowhere negative"):
        chefer_relevance([DenseAttention(-HAND)])
    with pytest.raises(MetricError, match="needs the cross-attention of a decoder"):
        cross_relevance([layer], [])
    with pytest.raises(MetricError, match="2 layers of the decoder ran before it; there are 1"):
        cross_relevance([layer], [(2, factored(0, 2, 3, 4)[0])])
    with pytest.raises(MetricError, match="3 heads of values do not fit"):
        positive_gradient(DenseAttention(HAND), torch.ones(3, 2, 2), GRADIENT)
