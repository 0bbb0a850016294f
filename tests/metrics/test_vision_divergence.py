"""Vision-aware head divergence on the cases worked by hand and against loops over lists."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.metrics import (
    MetricError,
    head_activation,
    token_vhd,
    vision_aware_heads,
    vision_head_divergence,
    zero_outliers,
)
from tests.metrics.patterns import NAN, close, lists, normal

SEEN = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
UNSEEN = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
SURGING = torch.tensor([10.0, 1.0, 2.0, 3.0])
ACTIVE = torch.tensor([9.0, 1.0, 1.0, 1.0])


def test_the_case_worked_by_hand() -> None:
    divergence = vision_head_divergence(SEEN, UNSEEN)
    close(divergence, [5.0, 1.0])
    close(token_vhd(divergence[None], k=1), 5.0)
    close(token_vhd(divergence[None], k=2), 6.0)
    close(head_activation(SEEN), [25.0, 1.0])
    close(head_activation(SEEN, squared=False), [5.0, 1.0])


@pytest.mark.parametrize("sample_std", [False, True])
def test_a_head_that_surges_is_an_outlier(
    sample_std: bool,
) -> None:
    zeroed = zero_outliers(SURGING, ACTIVE, sample_std=sample_std)  # 8.0825 and 7.0, or below
    close(zeroed, [0.0, 1.0, 2.0, 3.0])
    assert vision_aware_heads(zeroed).tolist() == [False, False, True, True]


def test_the_flavor_of_the_standard_deviation_and_the_square_decide_close_cases() -> None:
    divergence = torch.tensor([6.1, 0.0, 0.0, 4.0])  # 2.525 + 2.632 or 3.039: both below 6.1
    activation = torch.tensor([3.0, 1.0, 1.0, 2.9])  # 1.975 + 0.976 = 2.951 or 1.127 = 3.102
    close(zero_outliers(divergence, activation), [0.0, 0.0, 0.0, 4.0])
    close(zero_outliers(divergence, activation, sample_std=True), divergence)
    norms, surge = torch.tensor([5.0, 1.0, 4.0]), torch.tensor([9.0, 0.0, 0.0])
    close(zero_outliers(surge, norms), surge)  # 3.333 + 1.700 = 5.033
    close(zero_outliers(surge, norms.square()), torch.zeros(3))  # 14 + 9.899 = 23.899


def test_both_must_be_large() -> None:
    close(zero_outliers(SURGING, ACTIVE.flip(0)), SURGING)
    close(zero_outliers(SURGING[:1], ACTIVE[:1]), SURGING[:1])
    close(zero_outliers(SURGING[:1], ACTIVE[:1], sample_std=True), SURGING[:1])


def test_ties_at_the_median_select_fewer_than_half() -> None:
    assert vision_aware_heads(torch.tensor([0.0, 1.0, 1.0, 1.0])).tolist() == [False] * 4
    assert vision_aware_heads(torch.zeros(3)).tolist() == [False] * 3
    assert vision_aware_heads(torch.tensor([NAN, 1.0, 2.0])).tolist() == [False, False, True]


def test_agrees_with_loops_over_lists() -> None:
    seen, unseen = normal(0, 3, 5, 4), normal(1, 3, 5, 4)
    slow = [
        [math.dist(a, b) for a, b in zip(one, other, strict=True)]
        for one, other in zip(lists(seen), lists(unseen), strict=True)
    ]
    divergence = vision_head_divergence(seen, unseen)
    close(divergence, slow)
    close(token_vhd(divergence, k=2), sum(sum(sorted(layer)[-2:]) for layer in slow))
    assert vision_aware_heads(divergence).tolist() == [
        [value > statistics.median(layer) for value in layer] for layer in slow
    ]
    activation = head_activation(unseen)
    for layer, (values, active) in enumerate(zip(slow, lists(activation), strict=True)):
        bar, other = (statistics.mean(row) + statistics.pstdev(row) for row in (values, active))
        pairs = zip(values, active, strict=True)
        zeroed = [0.0 if v > bar and a > other else v for v, a in pairs]
        close(zero_outliers(divergence, activation)[layer], zeroed)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 4))
def test_a_distance_that_no_rotation_changes(seed: int, heads: int, width: int) -> None:
    seen, unseen = normal(seed, heads, width), normal(seed + 1, heads, width)
    divergence = vision_head_divergence(seen, unseen)
    turn = torch.linalg.qr(normal(seed + 2, width, width))[0]
    close(vision_head_divergence(unseen @ turn, seen @ turn), divergence)
    close(vision_head_divergence(seen, seen), torch.zeros(heads))
    sums = [float(token_vhd(divergence[None], k=k)) for k in range(1, heads + 1)]
    assert sums == sorted(sums)
    assert 2 * int(vision_aware_heads(divergence).sum()) <= heads


def test_an_unknown_head_leaves_the_sum_unknown() -> None:
    values = torch.tensor([[NAN, 1.0], [2.0, 3.0]])
    close(token_vhd(values, k=1), 4.0)
    close(token_vhd(values, k=2), NAN)


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(MetricError, match=r"they are \(2, 2\), without it \(1, 2\)"):
        vision_head_divergence(SEEN, UNSEEN[:1])
    with pytest.raises(MetricError, match="the 3 largest of 2 heads"):
        token_vhd(torch.ones(1, 2), k=3)
