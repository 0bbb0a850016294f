"""Groups of heads by span."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention
from attnscope.metrics import MetricError, fai, group_mean, head_groups, share_count, waad
from tests.metrics.patterns import NAN, close, random_operator


def test_heads_of_all_layers_are_sorted_together() -> None:
    groups = head_groups(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), quantile=0.3)
    assert groups.local_heads.int().tolist() == [[1, 1, 0], [0, 0, 0]]
    assert groups.global_heads.int().tolist() == [[0, 0, 0], [0, 1, 1]]


def test_of_equal_spans_the_first_head_is_taken_and_none_twice() -> None:
    groups = head_groups(torch.ones(2, 3), quantile=0.3)
    assert groups.global_heads.int().tolist() == [[1, 1, 0], [0, 0, 0]]
    assert groups.local_heads.int().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_heads_without_a_span_are_not_considered() -> None:
    groups = head_groups(torch.tensor([NAN, 1.0, 2.0, NAN]), quantile=0.5)
    assert groups.local_heads.int().tolist() == [0, 1, 0, 0]
    assert groups.global_heads.int().tolist() == [0, 0, 1, 0]


@settings(deadline=None)
@given(st.lists(st.floats(0, 9), min_size=2, max_size=20), st.floats(0.01, 0.5))
def test_groups_have_one_size_and_do_not_meet(spans: list[float], quantile: float) -> None:
    groups = head_groups(torch.tensor(spans), quantile)
    count = min(max(1, share_count(quantile, len(spans))), len(spans) // 2)
    assert int(groups.local_heads.sum()) == int(groups.global_heads.sum()) == count
    assert not bool((groups.local_heads & groups.global_heads).any())
    values = torch.tensor(spans)
    assert values[groups.local_heads].max() <= values[groups.global_heads].min()


def test_the_mean_of_readings_is_the_reading_of_the_mean_map() -> None:
    A = random_operator(0, 4, 9, 9)
    members = torch.tensor([True, False, True, True])
    mean_map = DenseAttention(A.pattern[members].mean(0, keepdim=True))
    close(group_mean(waad(A, 3), members), waad(mean_map, 3)[0])
    close(group_mean(fai(A, 1, 4), members), fai(mean_map, 1, 4)[0])


def test_refuses_quantiles_and_heads_that_make_no_groups() -> None:
    for quantile in (0.0, 0.6):
        with pytest.raises(MetricError, match=r"quantile is .* above 0 and at most 0.5"):
            head_groups(torch.ones(4), quantile)
    with pytest.raises(MetricError, match="need two heads with a span; 1 of 2 has one"):
        head_groups(torch.tensor([1.0, NAN]))
    with pytest.raises(MetricError, match="the group of heads is empty"):
        group_mean(torch.ones(2, 3), torch.zeros(2, dtype=torch.bool))
