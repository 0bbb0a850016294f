"""Jensen-Shannon divergence between heads."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import MetricError, divergence_between, divergence_of_heads, measure
from tests.metrics.patterns import (
    NAN,
    close,
    lists,
    normal,
    operators,
    random_operator,
    small_trace,
)


def test_the_cases_worked_by_hand() -> None:
    """Equal rows, half of one shared, disjoint one-hot rows."""
    rows = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    A = DenseAttention(torch.tensor(rows, dtype=torch.float64).unsqueeze(1))
    half, apart = 0.215762, 0.693147
    close(divergence_of_heads(A), [[0, half, apart], [half, 0, half], [apart, half, 0]])


def slow(one: list[list[float]], other: list[list[float]]) -> float:
    """Return the mean over queries by a loop, `sum a ln(a / m) / 2 + sum b ln(b / m) / 2`."""
    total = 0.0
    for left, right in zip(one, other, strict=True):
        for a, b in zip(left, right, strict=True):
            mean = (a + b) / 2
            total += sum(x * math.log(x / mean) for x in (a, b) if x > 0) / 2
    return total / len(one)


@pytest.mark.parametrize("causal", [True, False])
def test_agrees_with_a_loop_over_lists(causal: bool) -> None:
    one, other = random_operator(0, 2, 3, 6, 6, causal=causal), random_operator(1, 2, 2, 6, 6)
    heads, others = lists(one.pattern), lists(other.pattern)
    actual = divergence_between(one, other)
    for item, a, b in product(range(2), range(3), range(2)):
        assert float(actual[item, a, b]) == pytest.approx(slow(heads[item][a], others[item][b]))


@settings(max_examples=15, deadline=None)
@given(operators())
def test_it_is_symmetric_bounded_and_zero_for_a_head_and_itself(attention: DenseAttention) -> None:
    divergence = divergence_of_heads(attention)
    close(divergence, divergence.mT)
    assert bool((divergence <= math.log(2) + 1e-9).all())
    close(divergence.diagonal(dim1=-2, dim2=-1), torch.zeros(divergence.shape[:-1]))
    order = torch.arange(attention.heads).flip(0)
    close(divergence_of_heads(attention.select_heads(order)), divergence.flip(-1, -2))


def test_rows_that_one_head_lacks_are_left_out() -> None:
    pattern = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    one, other = (DenseAttention(head.unsqueeze(0)) for head in pattern)
    close(divergence_between(one, other), [[math.log(2)]])
    close(divergence_between(one, other, [0]), [[NAN]])
    close(divergence_between(other, other, [0]), [[0.0]])


def test_many_rows_are_thinned_at_even_steps() -> None:
    A = random_operator(2, 3, 9, 9)
    close(divergence_of_heads(A, most=3), divergence_of_heads(A, [0, 4, 8]))
    close(divergence_of_heads(A, most=9), divergence_of_heads(A))


def test_the_fused_operator_agrees_with_its_map() -> None:
    A = SoftmaxAttention(normal(3, 4, 33, 8), normal(4, 2, 33, 8))
    close(divergence_of_heads(A), divergence_of_heads(DenseAttention(A.dense())), 1e-9)


def test_a_trace_gives_the_numbers_of_its_operators() -> None:
    trace = small_trace()
    reading = measure(trace, "head_divergence")
    assert reading.axes == ("layer", "head", "other_head")
    close(reading.values[1], divergence_of_heads(trace.attention[5]))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(MetricError, match="do not map the same keys to the same queries"):
        divergence_between(random_operator(0, 1, 3, 3), random_operator(0, 1, 3, 4))
    signed = DenseAttention(torch.tensor([[[2.0, -1.0]]]))
    with pytest.raises(MetricError, match="rows that are distributions"):
        divergence_of_heads(signed)
