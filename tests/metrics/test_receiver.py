"""Receiver heads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import (
    MetricError,
    receiver_heads,
    receiver_score,
    sentence_attention,
    vertical_scores,
)
from tests.metrics.patterns import NAN, close, lists, normal, operators, random_operator, sheet

SENTENCES = [(0, 2), (2, 3), (3, 7), (7, 9)]


def slow_averages(head: list[list[float]], spans: list[tuple[int, int]], offset: int) -> list:
    return [
        [
            sum(head[t - offset][s] for t in range(a, b) for s in range(c, d)) / (b - a) / (d - c)
            for c, d in spans
        ]
        for a, b in spans
    ]


def slow_kurtosis(values: list[float]) -> float:
    known = [x for x in values if x == x]
    mean = sum(known) / len(known)
    second = sum((x - mean) ** 2 for x in known) / len(known)
    fourth = sum((x - mean) ** 4 for x in known) / len(known)
    return fourth / second**2 - 3


def test_maps_are_averaged_over_sentences() -> None:
    A = random_operator(0, 2, 3, 9, 9, causal=False)
    averaged = sentence_attention(A, SENTENCES)
    for batch in range(2):
        slow = [slow_averages(head, SENTENCES, 0) for head in lists(A.pattern[batch])]
        close(averaged[batch], slow)


def test_sentences_may_be_longer_than_a_tile_and_leave_gaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    A = SoftmaxAttention(normal(0, 2, 40, 4), normal(1, 2, 40, 4))
    spans = [(1, 3), (3, 30), (32, 33), (34, 40)]
    monkeypatch.setattr("attnscope.metrics.receiver._TILE", 1)
    slow = [slow_averages(head, spans, 0) for head in lists(A.dense())]
    close(sentence_attention(A, spans), slow, 1e-9)


def test_the_last_queries_of_a_sequence_have_their_own_sentences() -> None:
    A = random_operator(0, 1, 5, 9)
    spans = [(4, 6), (6, 9)]
    close(sentence_attention(A, spans), [slow_averages(lists(A.pattern)[0], spans, 4)])


def test_columns_are_averaged_over_sentences_well_behind() -> None:
    averaged = torch.tensor(
        [[1.0, 0, 0, 0], [0.7, 1.0, 0, 0], [0.6, 0.8, 1.0, 0], [0.9, 0.4, 0.3, 1.0]]
    )
    close(vertical_scores(averaged, proximity=2), [0.75, 0.4, NAN, NAN])
    close(vertical_scores(averaged), [NAN] * 4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda x: max(x) - min(x) > 1e-3))
def test_the_score_is_the_excess_kurtosis_of_what_is_defined(values: list[float]) -> None:
    score = receiver_score(torch.tensor([*values, NAN], dtype=torch.float64))
    close(score, slow_kurtosis(values), 1e-4)
    assert float(score) >= -2 - 1e-9


def test_a_head_without_variance_has_no_score() -> None:
    flat = torch.tensor([[0.1, 0.1, 0.1], [0.5, NAN, NAN], [NAN, NAN, NAN], [0.0, 0.0, 1.0]])
    assert receiver_score(flat).isnan().tolist() == [True, True, True, False]


def test_a_head_that_returns_to_one_sentence_is_the_receiver() -> None:
    even = torch.full((20, 20), 1 / 20).tril()
    peaked = even.clone()
    peaked[:, 3] = 0.9
    maps = torch.stack([even, peaked])
    maps = maps.tril() / maps.tril().sum(-1, keepdim=True)
    averaged = sentence_attention(DenseAttention(maps), [(i, i + 1) for i in range(20)])
    scores = receiver_score(vertical_scores(averaged))
    assert receiver_heads(scores, count=1).tolist() == [False, True]


@settings(max_examples=10, deadline=None)
@given(operators(square=True))
def test_averages_are_shares(attention: DenseAttention) -> None:
    averaged = sentence_attention(attention, [(i, i + 1) for i in range(attention.keys)])
    close(averaged, attention.pattern)


@pytest.mark.parametrize("spans", [[(2, 2)], [(-1, 1)], [(3, 5)], [(0, 2), (1, 3)]])
def test_refuses_sentences_that_are_empty_outside_or_overlap(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(MetricError, match=r"is empty, overlaps .* outside the positions 0 to 4"):
        sentence_attention(sheet(), spans)


def test_refuses_no_sentences() -> None:
    with pytest.raises(MetricError, match="sentence_attention needs sentences; none is given"):
        sentence_attention(sheet(), [])


def test_refuses_to_let_a_sentence_score_itself() -> None:
    with pytest.raises(MetricError, match="proximity is 0; it is 1 or more"):
        vertical_scores(torch.eye(3), proximity=0)
