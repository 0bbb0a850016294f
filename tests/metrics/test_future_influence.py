"""`fai` against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import DenseAttention, Mask, OuterAttention, SoftmaxAttention
from attnscope.metrics import MetricError, fai
from tests.metrics.patterns import NAN, close, lists, normal, operators, random_operator, sheet


def slow_fai(
    pattern: Tensor, offset: int, near: int, far: int | None, queries: list[int] | None = None
) -> list[list[float]]:
    rows = range(pattern.shape[-2]) if queries is None else queries
    values = []
    for head in lists(pattern):
        of_keys = []
        for s in range(pattern.shape[-1]):
            last = float("inf") if far is None else s + far
            received = [head[t][s] for t in rows if s + near <= t + offset <= last]
            of_keys.append(sum(received) / len(received) if received else NAN)
        values.append(of_keys)
    return values


def test_the_case_worked_by_hand() -> None:
    close(fai(sheet(), near=1, far=2), [[0.35, 0.25, 0.30, NAN]])
    close(fai(sheet(), near=1, far=2, queries=[2, 3]), [[0.20, 0.25, 0.30, NAN]])


@pytest.mark.parametrize("far", [2, 5, 100, None])
@pytest.mark.parametrize("near", [0, 1, 4])
@pytest.mark.parametrize(("queries", "keys"), [(11, 11), (5, 11), (1, 1)])
@pytest.mark.parametrize("causal", [True, False])
def test_agrees_with_a_loop_over_lists(
    near: int, far: int | None, queries: int, keys: int, causal: bool
) -> None:
    A = random_operator(1, 2, queries, keys, causal=causal)
    if far is not None and far < near:
        far = near
    close(fai(A, near, far), slow_fai(A.pattern, keys - queries, near, far))


@pytest.mark.parametrize("far", [4, None])
def test_only_the_queries_asked_for_read(far: int | None) -> None:
    A = random_operator(2, 2, 12, 12)
    rows = [1, 4, 5, 9, 11]
    expected = slow_fai(A.pattern, 0, 2, far, rows)
    close(fai(A, 2, far, rows), expected)
    close(fai(A, 2, far, torch.tensor(rows)), expected)
    close(fai(A, 2, far, slice(6, None)), slow_fai(A.pattern, 0, 2, far, list(range(6, 12))))


def test_queries_before_the_first_key_read_nothing() -> None:
    early = DenseAttention(random_operator(3, 1, 6, 6).pattern[:, :, :3], offset=-2)
    close(fai(early, 1, 3), slow_fai(early.pattern, -2, 1, 3))
    late = DenseAttention(random_operator(3, 1, 4, 4, causal=False).pattern, offset=3)
    close(fai(late, 1, 3), slow_fai(late.pattern, 3, 1, 3))


@settings(max_examples=25, deadline=None)
@given(operators(), st.integers(0, 5), st.integers(0, 9))
def test_is_a_share_and_undefined_for_the_last_tokens(
    attention: DenseAttention, near: int, more: int
) -> None:
    values = fai(attention, near, near + more)
    known = values[~values.isnan()]
    assert values.shape == (*attention.shape[:-2], attention.keys)
    assert bool((known >= 0).all())
    assert bool((known <= 1 + 1e-9).all())
    assert bool(values[..., max(0, attention.keys - near) :].isnan().all())


@settings(max_examples=15, deadline=None)
@given(operators(), st.sampled_from([3, None]))
def test_batch_axes_and_heads_are_measured_alone(
    attention: DenseAttention, far: int | None
) -> None:
    values = fai(attention, 1, far)
    flat = attention.pattern.reshape(-1, 1, *attention.shape[-2:])
    alone = torch.stack(
        [fai(DenseAttention(head, offset=attention.offset), 1, far) for head in flat]
    )
    close(values, alone.reshape(values.shape))


@pytest.mark.parametrize("far", [9, None])
def test_the_fused_operator_agrees_with_its_map(far: int | None) -> None:
    A = SoftmaxAttention(normal(3, 4, 33, 8), normal(4, 2, 33, 8))
    close(fai(A, 3, far), fai(DenseAttention(A.dense()), 3, far), 1e-9)


def test_padding_is_no_reader() -> None:
    valid = torch.tensor([True] * 5 + [False] * 3)
    mask = Mask(after=0, key_valid=valid, query_valid=valid)
    A = SoftmaxAttention(normal(3, 2, 8, 4), normal(4, 2, 8, 4), mask=mask)
    short = SoftmaxAttention(normal(3, 2, 8, 4)[:, :5], normal(4, 2, 8, 4)[:, :5])
    for far in (2, None):
        close(fai(A, 1, far)[:, :5], fai(short, 1, far), 1e-9)
        assert bool(fai(A, 1, far)[:, 5:].isnan().all())


def test_a_long_sequence_agrees_with_one_of_its_columns() -> None:
    A = SoftmaxAttention(normal(3, 2, 3000, 8).float(), normal(4, 1, 3000, 8).float())
    received = fai(A, 10, 50)
    by_hand = A.columns([500])[:, 510:551].mean(1)
    close(received[:, 500], by_hand[:, 0], 1e-5)


@pytest.mark.parametrize("horizon", [(-1, 3), (5, 4)])
def test_refuses_an_empty_horizon(horizon: tuple[int, int]) -> None:
    with pytest.raises(MetricError, match=r"fai horizon runs from .* 0 <= near <= far"):
        fai(sheet(), *horizon)


def test_refuses_what_it_is_not_defined_for() -> None:
    with pytest.raises(MetricError, match="fai needs attention that is nowhere negative"):
        fai(OuterAttention(normal(0, 1, 3, 2), normal(1, 1, 3, 2)))
    with pytest.raises(MetricError, match="fai needs queries and keys that are positions of one"):
        fai(DenseAttention(sheet().pattern, query_axis="probe"))
    with pytest.raises(MetricError, match="rows go from 0 to 3"):
        fai(sheet(), queries=[4])
