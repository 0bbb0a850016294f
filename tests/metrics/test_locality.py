"""Distance and window mass along a sequence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import DenseAttention, Mask, SoftmaxAttention
from attnscope.metrics import MetricError, head_span, mean_distance, window_mass
from tests.metrics.patterns import NAN, close, lists, normal, operators, random_operator, sheet


def slow_distance(pattern: Tensor, offset: int, rows: list[int]) -> list[float]:
    return [
        sum(w * abs(t + offset - s) for t in rows for s, w in enumerate(head[t])) / len(rows)
        for head in lists(pattern)
    ]


def slow_window(pattern: Tensor, offset: int, radius: int) -> list[list[float]]:
    return [
        [
            sum(weight for s, weight in enumerate(row) if abs(t + offset - s) <= radius)
            for t, row in enumerate(head)
        ]
        for head in lists(pattern)
    ]


def test_the_case_worked_by_hand() -> None:
    close(mean_distance(sheet(), [2, 3]), [0.85])
    close(window_mass(sheet(), radius=1), [[1.0, 1.0, 0.8, 0.7]])
    close(window_mass(sheet(), radius=0), [[1.0, 0.5, 0.5, 0.4]])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (4, 9), (1, 1)])
@pytest.mark.parametrize("radius", [0, 2, 30])
def test_agrees_with_a_loop_over_lists(causal: bool, queries: int, keys: int, radius: int) -> None:
    A = random_operator(1, 2, queries, keys, causal=causal)
    rows = list(range(queries))[-2:]
    close(mean_distance(A, rows), slow_distance(A.pattern, keys - queries, rows))
    close(window_mass(A, radius), slow_window(A.pattern, keys - queries, radius))


@pytest.mark.parametrize("causal", [True, False])
def test_many_rows_are_taken_block_by_block(causal: bool) -> None:
    A = SoftmaxAttention(normal(0, 1, 600, 4), normal(1, 1, 600, 4), causal=causal)
    dense = DenseAttention(A.dense())
    close(window_mass(A, 20), slow_window(dense.pattern, 0, 20), 1e-9)
    close(mean_distance(A), slow_distance(dense.pattern, 0, list(range(600))), 1e-9)


@settings(max_examples=25, deadline=None)
@given(operators(causal=False), st.integers(0, 9))
def test_mass_grows_with_the_window_up_to_all(attention: DenseAttention, radius: int) -> None:
    near, nearer = window_mass(attention, radius + 1), window_mass(attention, radius)
    assert bool((nearer <= near + 1e-9).all())
    close(window_mass(attention, attention.keys), near.new_ones(near.shape))


@settings(max_examples=10, deadline=None)
@given(operators())
def test_distance_is_span_where_attention_is_causal(attention: DenseAttention) -> None:
    close(mean_distance(attention), head_span(attention))


def test_a_query_that_sees_nothing_is_undefined() -> None:
    mask = Mask(key_valid=sheet().pattern[0, 1] > 0, query_valid=sheet().pattern[0, 1] > 0)
    A = SoftmaxAttention(normal(3, 2, 4, 4), normal(4, 2, 4, 4), mask=mask)
    close(window_mass(A, 9), [[1.0, 1.0, NAN, NAN]] * 2)
    close(mean_distance(A), slow_distance(A.dense(), 0, [0, 1]))


def test_refuses_what_it_is_not_defined_for() -> None:
    with pytest.raises(MetricError, match="window_mass radius is -1"):
        window_mass(sheet(), radius=-1)
    for metric in (mean_distance, window_mass):
        with pytest.raises(MetricError, match=f"{metric.__name__} needs queries and keys that are"):
            metric(DenseAttention(sheet().pattern, offset=None))
        with pytest.raises(MetricError, match="nowhere negative"):
            metric(DenseAttention(-sheet().pattern))
