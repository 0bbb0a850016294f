"""Received attention, sink mass and sink rate."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import MetricError, received_attention, sink_mass, sink_rate
from tests.metrics.patterns import NAN, close, lists, normal, operators, random_operator, sheet

HAND = torch.tensor([[[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.7, 0.2, 0.1]]], dtype=torch.float64)
UNIFORM = torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]])


def slow_received(pattern: Tensor, offset: int, causal: bool) -> list[list[float]]:
    values = []
    for head in lists(pattern):
        of_keys = []
        for s in range(pattern.shape[-1]):
            seen = [row[s] for t, row in enumerate(head) if not causal or t + offset >= s]
            of_keys.append(sum(seen) / len(seen) if seen else NAN)
        values.append(of_keys)
    return values


def test_the_case_worked_by_hand() -> None:
    received = received_attention(DenseAttention(HAND))
    close(received, [[2.5 / 3, 0.2, 0.1]])
    close(sink_mass(DenseAttention(HAND)), [2.5 / 3])
    assert [float(sink_rate(received, key)) for key in range(3)] == [100.0, 0.0, 0.0]


def test_a_short_uniform_head_has_a_sink_of_its_own() -> None:
    close(received_attention(DenseAttention(UNIFORM))[:, 0], [0.6111], 1e-4)


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (4, 9), (1, 1)])
@pytest.mark.parametrize("causal", [True, False])
def test_agrees_with_a_loop_over_lists(queries: int, keys: int, causal: bool) -> None:
    A = random_operator(1, 2, queries, keys, causal=causal)
    close(received_attention(A), slow_received(A.pattern, keys - queries, causal or queries == 1))
    rows = list(range(queries))[-2:]
    keys_asked = sorted({0, keys // 2})
    mass = [[sum(row[s] for s in keys_asked) for row in head] for head in lists(A.pattern)]
    expected = [sum(head[t] for t in rows) / len(rows) for head in mass]
    close(sink_mass(A, (0, keys // 2), rows), expected)


@settings(max_examples=25, deadline=None)
@given(operators())
def test_shares_stay_between_zero_and_one(attention: DenseAttention) -> None:
    for values in (received_attention(attention), sink_mass(attention)):
        known = values[~values.isnan()]
        assert bool(((known >= 0) & (known <= 1 + 1e-9)).all())
    order = torch.arange(attention.heads).flip(0)
    close(received_attention(attention.select_heads(order)), received_attention(attention).flip(-2))


def test_a_key_that_no_query_can_see_is_undefined() -> None:
    early = DenseAttention(HAND[:, :2], offset=0)
    close(received_attention(early), [[0.9, 0.2, NAN]])


def test_queries_that_see_nothing_do_not_count() -> None:
    padded = torch.zeros(1, 4, 4, dtype=torch.float64)
    padded[:, :3, :3] = HAND
    close(received_attention(DenseAttention(padded)), [[2.5 / 3, 0.2, 0.1, NAN]])
    close(sink_mass(DenseAttention(padded)), [2.5 / 3])


def test_the_fused_operator_agrees_with_its_map() -> None:
    A = SoftmaxAttention(normal(3, 4, 33, 8), normal(4, 2, 33, 8))
    dense = DenseAttention(A.dense())
    close(received_attention(A), received_attention(dense), 1e-9)
    close(sink_mass(A), sink_mass(dense), 1e-9)


def test_the_rate_counts_all_heads_alike_and_is_strict() -> None:
    received = torch.tensor([[[0.3, NAN], [0.31, 0.5]], [[0.9, NAN], [0.0, 0.2]]])
    assert float(sink_rate(received)) == 50.0
    assert float(sink_rate(received, key=1)) == 50.0  # of the two heads that can see it
    assert float(sink_rate(received, threshold=0.95)) == 0.0


def test_refuses_what_it_is_not_defined_for() -> None:
    signed = DenseAttention(-sheet().pattern)
    with pytest.raises(MetricError, match="received_attention needs attention that is nowhere"):
        received_attention(signed)
    with pytest.raises(MetricError, match="sink_mass needs attention that is nowhere"):
        sink_mass(signed)
    with pytest.raises(MetricError, match="sink_rate of key 3: there are 3 keys"):
        sink_rate(torch.zeros(2, 3), key=3)
