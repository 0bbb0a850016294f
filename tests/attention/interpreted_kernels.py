"""The Triton kernels under Triton's interpreter, on a processor, against a dense map in float64.

Triton decides when it is imported whether to interpret. So these tests are not collected with the
others: `test_tile_statistics.py` runs them in a process with TRITON_INTERPRET=1. The interpreter
cannot multiply bfloat16, which is left to the compiler (in the same file) and to a GPU.
"""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import Mask, key_position, triton_statistics
from attnscope.attention.scores import Scores
from attnscope.attention.tile_statistics import column_sums, row_moments, tile_band
from tests.attention.oracle import Case, band_of
from tests.attention.strategies import normal

CAUSAL = Mask(after=0)


@pytest.fixture(autouse=True, scope="module")
def kernels_in_small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_statistics, "_block_sizes", lambda row_bytes, by_row: (16, 16))
        patch.setattr("attnscope.attention.tile_statistics.has_kernels", lambda device: True)
        yield


def flat(case: Case) -> Scores:
    scale = case.options.get("scale") or case.query.shape[-1] ** -0.5
    return Scores(query=case.query, key=case.key, scale=scale, mask=case.mask)


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(
        actual.double(), expected.double(), atol=tolerance, rtol=tolerance, equal_nan=True
    )


def distances_of(case: Case) -> Tensor:
    queries, keys = case.sizes
    return torch.arange(queries)[:, None] + case.mask.offset - torch.arange(keys)


def check(case: Case, near: int, far: int, tolerance: float = 2e-5) -> None:
    """Hold every statistic of the entries from `near` to `far` to sums over the dense map."""
    scores, total = flat(case), case.log_normalizer().float()
    apart = distances_of(case)
    pattern = case.pattern() * ((apart >= near) & (apart <= far))
    moments = row_moments(scores, total, (near, far))
    close(moments.mass, pattern.sum(-1), tolerance)
    close(moments.distance, (pattern * apart).sum(-1), tolerance)
    close(moments.entropy, -torch.special.xlogy(pattern, pattern).sum(-1), tolerance)
    weights = normal(9, *total.shape, dtype=torch.float32)
    expected = (pattern * weights.double().unsqueeze(-1)).sum(-2)
    close(column_sums(scores, total, weights, (near, far)), expected, tolerance)
    width = min(max(far, 0), 20) + 1
    close(tile_band(scores, total, width), band_of(case.pattern(), width, case.mask.offset))


@st.composite
def small_cases(draw: Any) -> Case:
    kv_heads, group = draw(st.sampled_from([(1, 1), (1, 2), (2, 1)]))
    keys = draw(st.sampled_from([1, 15, 16, 17, 33]))
    queries = draw(st.sampled_from([keys, keys, 1, 18]))
    mask = Mask(
        before=draw(st.sampled_from([None, None, 0, 6])),
        after=draw(st.sampled_from([0, 0, 0, None, -1])),
        query_origin=keys - queries,
    )
    seed, dim = draw(st.integers(0, 2**31)), draw(st.sampled_from([1, 8, 20]))
    query = normal(seed, 1, kv_heads * group, queries, dim, dtype=torch.float32)
    key = normal(seed + 1, 1, kv_heads, keys, dim, dtype=torch.float32)
    return Case(query, key, {"mask": mask})


def test_two_tokens_by_hand() -> None:
    query = torch.tensor([[[[5.0], [math.log(3)]]]])
    key = torch.tensor([[[[0.0], [1.0]]]])
    scores = Scores(query=query, key=key, scale=1.0, mask=CAUSAL)
    total = torch.tensor([[[0.0, math.log(4)]]])  # e^0, and e^0 + e^(ln 3)
    moments = row_moments(scores, total)  # rows (1) and (1/4, 3/4)
    close(moments.mass, torch.tensor([[[1.0, 1.0]]]))
    close(moments.distance, torch.tensor([[[0.0, 0.25]]]))
    close(moments.entropy, torch.tensor([[[0.0, math.log(4) - 0.75 * math.log(3)]]]))
    ones = torch.ones(1, 1, 2)
    close(column_sums(scores, total, ones), torch.tensor([[[1.25, 0.75]]]))
    close(column_sums(scores, total, ones, (1, 1)), torch.tensor([[[0.25, 0.0]]]))
    close(tile_band(scores, total, 2), torch.tensor([[[[1.0, 0.0], [0.75, 0.25]]]]))


@settings(max_examples=12, deadline=None, report_multiple_bugs=False, derandomize=True)
@given(small_cases(), st.sampled_from([(-99, 99), (0, 9), (3, 20)]))
def test_statistics_are_those_of_the_dense_map(case: Case, distances: tuple[int, int]) -> None:
    check(case, *distances)


def test_half_precision_and_factors_that_lie_head_by_head_in_each_row() -> None:
    query = normal(1, 2, 18, 2, 8, dtype=torch.float16).transpose(1, 2)
    key = normal(2, 2, 18, 1, 8, dtype=torch.float16).transpose(1, 2)
    check(Case(query, key, {"mask": CAUSAL}), 0, 99)


def test_rows_without_keys_hold_nothing() -> None:
    case = Case(normal(1, 1, 1, 5, 4), normal(2, 1, 1, 5, 4), {"mask": CAUSAL})
    scores = flat(Case(case.query.float(), case.key.float(), case.options))
    total = case.log_normalizer().float().index_fill(2, torch.tensor([3]), -torch.inf)
    moments = row_moments(scores, total)
    assert [float(sums[0, 0, 3]) for sums in (moments.mass, moments.distance)] == [0, 0]
    assert float(moments.entropy[0, 0, 3]) == 0
    without = case.pattern().index_fill(2, torch.tensor([3]), 0)
    close(column_sums(scores, total, torch.ones_like(total)), without.sum(-2))
    close(tile_band(scores, total, 5), band_of(without, 5, 0))


@pytest.mark.parametrize("sinks", [False, True])
def test_softmax_attention_asks_the_kernels(monkeypatch: pytest.MonkeyPatch, sinks: bool) -> None:
    options: dict[str, Any] = {"mask": Mask(after=0, before=11)}
    if sinks:
        options["sinks"] = normal(3, 2, dtype=torch.float32)
    query, key = (normal(heads, heads, 18, 8, dtype=torch.float32) for heads in (2, 1))
    case = Case(query, key, options)
    launched = []
    launch = triton_statistics._launch

    def counted(kernel: Any, *arguments: Any, **more: Any) -> None:
        launched.append(kernel.fn.__name__)
        launch(kernel, *arguments, **more)

    monkeypatch.setattr(triton_statistics, "_launch", counted)
    monkeypatch.setattr("attnscope.attention.softmax.pays", lambda scores: False)
    operator, pattern = case.operator(), case.pattern()
    if not sinks:
        close(operator.entropy(), -torch.special.xlogy(pattern, pattern).sum(-1))
    close(operator.column_mass(), pattern.sum(-2))
    close(operator.key_moment(key_position), pattern @ torch.arange(18.0).double(), 1e-4)
    close(operator.band(3), band_of(pattern, 3, 0))
    expected = ["_column_sums", "_row_moments", "_band"]
    assert launched == (expected if sinks else ["_row_moments", *expected])
