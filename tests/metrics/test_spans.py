"""`head_span` and `look_back` against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from attnscope.attention import DenseAttention, Mask, SoftmaxAttention, key_position
from attnscope.metrics import MetricError, head_span, look_back
from tests.metrics.patterns import NAN, close, lists, normal, operators, random_operator, sheet


def slow_span(
    pattern: Tensor, offset: int, queries: list[int], drop: tuple[int, ...] = ()
) -> list[float]:
    spans = []
    for head in lists(pattern):
        distances = []
        for t in queries:
            kept = {s: weight for s, weight in enumerate(head[t]) if s not in drop}
            total = sum(kept.values()) if drop else 1.0
            if total > 0:
                moments = (weight * (t + offset - s) for s, weight in kept.items())
                distances.append(sum(moments) / total)
        spans.append(sum(distances) / len(distances) if distances else NAN)
    return spans


def test_the_case_worked_by_hand() -> None:
    close(look_back(sheet()), [[0.0, 0.5, 0.7, 1.0]])
    close(head_span(sheet(), queries=[2, 3]), [0.85])


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (4, 9), (1, 1)])
@pytest.mark.parametrize("drop", [(), (0,), (0, 3)])
def test_agrees_with_a_loop_over_lists(queries: int, keys: int, drop: tuple[int, ...]) -> None:
    A = random_operator(1, 2, queries, keys)
    drop = tuple(key for key in drop if key < keys)
    rows = list(range(queries))[-3:]
    close(head_span(A, rows, drop=drop), slow_span(A.pattern, keys - queries, rows, drop))


@settings(max_examples=25, deadline=None)
@given(operators())
def test_lies_between_zero_and_the_mean_position(attention: DenseAttention) -> None:
    spans = head_span(attention)
    assert attention.offset is not None
    furthest = (torch.arange(attention.queries) + attention.offset).double().mean()
    assert spans.shape == attention.shape[:-2]
    assert bool(((spans >= 0) & (spans <= furthest + 1e-9)).all())


@settings(max_examples=15, deadline=None)
@given(operators())
def test_permuting_heads_permutes_spans(attention: DenseAttention) -> None:
    order = torch.arange(attention.heads).flip(0)
    close(head_span(attention.select_heads(order)), head_span(attention).flip(-1))


def test_a_sink_looks_global_until_it_is_dropped() -> None:
    sink = torch.eye(8) * 0.1
    sink[:, 0] += 0.9
    spans = head_span(DenseAttention(sink[None])), head_span(DenseAttention(sink[None]), drop=[0])
    close(spans[0], [0.9 * 3.5])
    close(spans[1], [0.0])


def test_the_fused_operator_agrees_with_its_map_and_remembers_a_rider() -> None:
    A = SoftmaxAttention(normal(3, 4, 33, 8), normal(4, 2, 33, 8))
    dense = DenseAttention(A.dense())
    rows = range(20, 33)
    close(head_span(A, rows), head_span(dense, rows), 1e-9)
    close(head_span(A, rows, drop=[0]), head_span(dense, rows, drop=[0]), 1e-9)
    ridden = SoftmaxAttention(normal(3, 4, 33, 8), normal(4, 2, 33, 8))
    ridden.attend(normal(5, 2, 33, 8), riders=(key_position,))
    close(head_span(ridden, rows), head_span(dense, rows), 1e-9)


def test_queries_that_see_nothing_are_left_out() -> None:
    valid = torch.tensor([False, True, True, True])
    mask = Mask(after=0, key_valid=valid, query_valid=valid)
    A = SoftmaxAttention(normal(3, 2, 4, 4), normal(4, 2, 4, 4), mask=mask)
    close(head_span(A), head_span(DenseAttention(A.dense()), [1, 2, 3]))
    assert bool(look_back(A)[:, 0].isnan().all())


def test_queries_that_read_ahead_are_left_out() -> None:
    prefix = torch.tensor([0, 0, 0, 0, -1, -1, -1])
    mask = Mask(after=0, query_block=prefix, key_block=prefix)
    A = SoftmaxAttention(normal(3, 2, 7, 4), normal(4, 2, 7, 4), mask=mask)
    backward = [3, 4, 5, 6]
    close(head_span(A), slow_span(A.dense(), 0, backward))
    close(head_span(A, drop=[0]), slow_span(A.dense(), 0, backward, (0,)))
    close(look_back(A)[:, :3], torch.full((2, 3), NAN))


def test_a_head_without_queries_is_undefined() -> None:
    close(head_span(sheet(), queries=[]), [NAN])
    close(head_span(sheet(), queries=[0], drop=[0]), [NAN])


def test_refuses_what_it_is_not_defined_for() -> None:
    with pytest.raises(MetricError, match=r"head_span is defined for causal .* reads ahead"):
        head_span(random_operator(0, 1, 4, 4, causal=False))
    with pytest.raises(MetricError, match=r"head_span needs queries and keys that are positions"):
        head_span(DenseAttention(sheet().pattern, offset=None))
    with pytest.raises(MetricError, match=r"head_span needs attention that is nowhere negative"):
        head_span(DenseAttention(-sheet().pattern))
    with pytest.raises(MetricError, match=r"drop=\[4\] reaches outside .* keys go from 0 to 3"):
        head_span(sheet(), drop=[4])
