"""Attention rollout."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention
from attnscope.metrics import MetricError, attention_rollout
from tests.metrics.patterns import close, pattern, sheet

HAND = DenseAttention(torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]))


def slow_rollout(maps: list[torch.Tensor]) -> torch.Tensor:
    product = torch.eye(maps[0].shape[-1], dtype=torch.float64)
    for layer in maps:
        mixed = layer.mean(-3) + torch.eye(layer.shape[-1])
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    return product


def test_the_case_worked_by_hand() -> None:
    close(attention_rollout([HAND, HAND], query=0), [0.5875, 0.4125])
    close(attention_rollout([HAND, HAND]), [0.165, 0.835])


@pytest.mark.parametrize("causal", [True, False])
def test_agrees_with_multiplying_the_maps_out(causal: bool) -> None:
    maps = [pattern(seed, 3, 8, 8, causal=causal) for seed in range(4)]
    layers = [DenseAttention(layer) for layer in maps]
    for query in (0, 5, -1):
        close(attention_rollout(layers, query), slow_rollout(maps)[query])


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_shares_sum_to_one(depth: int, tokens: int, seed: int) -> None:
    layers = [DenseAttention(pattern(seed + i, 2, 2, tokens, tokens)) for i in range(depth)]
    shares = attention_rollout(layers)
    assert bool((shares >= 0).all())
    close(shares.sum(-1), torch.ones(2))


def test_refuses_what_it_is_not_defined_for() -> None:
    with pytest.raises(MetricError, match="attention_rollout needs the layers of a model"):
        attention_rollout([])
    with pytest.raises(MetricError, match="from one sequence to itself; layer 1 is"):
        attention_rollout([sheet(), HAND])
    with pytest.raises(MetricError, match="nowhere negative"):
        attention_rollout([DenseAttention(-sheet().pattern)])
