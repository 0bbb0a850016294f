"""Entropy of rows."""

import math

import pytest
import torch
from hypothesis import given, settings

from attnscope.attention import DenseAttention, OperatorError, SoftmaxAttention
from attnscope.metrics import (
    MetricError,
    attention_entropy,
    normalized_entropy,
    participation_ratio,
)
from tests.metrics.patterns import NAN, close, lists, normal, operators, random_operator, sheet


def test_the_case_worked_by_hand() -> None:
    close(attention_entropy(sheet())[0, [0, 1, 3]], [0.0, math.log(2), 1.27985], 1e-5)
    close(normalized_entropy(sheet())[0, [0, 1, 3]], [NAN, 1.0, 1.27985 / math.log(4)], 1e-5)
    close(participation_ratio(sheet())[0, [0, 1]], [1.0, 2.0])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (3, 7)])
def test_agrees_with_a_loop_over_lists(causal: bool, queries: int, keys: int) -> None:
    A = random_operator(1, 2, queries, keys, causal=causal)
    entropy = [
        [-sum(w * math.log(w) for w in row if w > 0) for row in head] for head in lists(A.pattern)
    ]
    close(attention_entropy(A), entropy)
    seen = [t + keys - queries + 1 if causal else keys for t in range(queries)]
    close(
        normalized_entropy(A),
        [
            [h / math.log(n) if n > 1 else NAN for h, n in zip(head, seen, strict=True)]
            for head in entropy
        ],
    )
    ratio = [[1 / sum(w * w for w in row) for row in head] for head in lists(A.pattern)]
    close(participation_ratio(A), ratio)


@settings(max_examples=25, deadline=None)
@given(operators())
def test_bounds_hold(attention: DenseAttention) -> None:
    assert bool((attention_entropy(attention) >= 0).all())
    share = normalized_entropy(attention)
    assert bool((share[~share.isnan()] <= 1 + 1e-9).all())
    ratio = participation_ratio(attention)
    assert bool(((ratio >= 1 - 1e-9) & (ratio <= attention.keys + 1e-9)).all())
    order = torch.arange(attention.heads).flip(0)
    close(attention_entropy(attention.select_heads(order)), attention_entropy(attention).flip(-2))


def test_the_fused_operator_agrees_with_its_map() -> None:
    A = SoftmaxAttention(normal(3, 4, 33, 8), normal(4, 2, 33, 8))
    dense = DenseAttention(A.dense())
    close(attention_entropy(A), attention_entropy(dense), 1e-9)
    close(participation_ratio(A), participation_ratio(dense), 1e-9)


def test_rows_that_see_nothing_are_undefined() -> None:
    A = DenseAttention(torch.tensor([[[0.0, 0.0], [0.5, 0.5]]]))
    for metric in (attention_entropy, normalized_entropy, participation_ratio):
        assert metric(A).isnan().tolist() == [[True, False]]


def test_rows_beside_a_learned_sink_have_to_be_rescaled_for_entropy() -> None:
    A = SoftmaxAttention(normal(3, 2, 9, 4), normal(4, 2, 9, 4), sinks=normal(5, 2))
    with pytest.raises(OperatorError, match="entropy needs rows that are distributions"):
        attention_entropy(A)
    without = SoftmaxAttention(normal(3, 2, 9, 4), normal(4, 2, 9, 4))
    close(attention_entropy(A.normalized()), attention_entropy(without))
    close(participation_ratio(A), participation_ratio(without))


def test_refuses_signed_attention() -> None:
    with pytest.raises(MetricError, match="participation_ratio needs attention that is nowhere"):
        participation_ratio(DenseAttention(-sheet().pattern))
