"""`waad` against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import DenseAttention, Mask, OuterAttention, SoftmaxAttention
from attnscope.metrics import MetricError, waad
from tests.metrics.patterns import NAN, close, lists, normal, operators, random_operator, sheet


def slow_waad(pattern: Tensor, offset: int, window: int) -> list[list[float]]:
    return [
        [
            sum(
                weight * min(t + offset - s, window)
                for s, weight in enumerate(row)
                if s <= t + offset
            )
            for t, row in enumerate(head)
        ]
        for head in lists(pattern)
    ]


def test_the_case_worked_by_hand() -> None:
    close(waad(sheet(), window=2), [[0.0, 0.5, 0.7, 0.9]])


def test_a_window_beyond_the_sequence_gives_the_mean_distance() -> None:
    close(waad(sheet(), window=1_000_000), [[0.0, 0.5, 0.7, 1.0]])


def test_a_window_of_one_gives_what_does_not_stay_at_home() -> None:
    A = random_operator(0, 3, 9, 9)
    close(waad(A, window=1), 1 - A.pattern.diagonal(dim1=-2, dim2=-1))


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (4, 9), (1, 9), (1, 1)])
@pytest.mark.parametrize("window", [1, 3, 50])
def test_agrees_with_a_loop_over_lists(queries: int, keys: int, window: int) -> None:
    A = random_operator(1, 2, queries, keys)
    close(waad(A, window), slow_waad(A.pattern, keys - queries, window))


@settings(max_examples=25, deadline=None)
@given(operators(), st.integers(1, 16))
def test_lies_between_zero_and_both_bounds(attention: DenseAttention, window: int) -> None:
    values = waad(attention, window)
    assert attention.offset is not None
    position = torch.arange(attention.queries) + attention.offset
    assert values.shape == attention.shape[:-1]
    assert bool((values >= 0).all())
    assert bool((values <= position.clamp_max(window) + 1e-9).all())


@settings(max_examples=15, deadline=None)
@given(operators(), st.integers(1, 16))
def test_batch_axes_and_heads_are_measured_alone(attention: DenseAttention, window: int) -> None:
    values = waad(attention, window)
    flat = attention.pattern.reshape(-1, 1, *attention.shape[-2:])
    alone = torch.stack(
        [waad(DenseAttention(head, offset=attention.offset), window) for head in flat]
    )
    close(values, alone.reshape(values.shape))


def test_the_fused_operator_agrees_with_its_map() -> None:
    A = SoftmaxAttention(normal(3, 4, 33, 8), normal(4, 2, 33, 8))
    close(waad(A, 7), waad(DenseAttention(A.dense()), 7), 1e-9)


def test_image_patches_that_read_ahead_are_undefined() -> None:
    block = torch.tensor([-1, -1, 0, 0, 0, 0, -1, -1, -1])
    mask = Mask(after=0, query_block=block, key_block=block)
    A = SoftmaxAttention(normal(3, 2, 9, 4), normal(4, 2, 9, 4), mask=mask)
    expected = torch.tensor(slow_waad(A.dense(), 0, 3))
    expected[:, 2:5] = NAN  # the last patch sees nothing ahead
    close(waad(A, 3), expected)


def test_rows_with_a_learned_sink_count_what_they_keep() -> None:
    A = SoftmaxAttention(normal(3, 2, 12, 4), normal(4, 2, 12, 4), sinks=torch.tensor([1.0, -1.0]))
    close(waad(A, 4), slow_waad(A.dense(), 0, 4))


def test_a_query_that_sees_nothing_is_undefined() -> None:
    A = DenseAttention(torch.tensor([[[0.0, 0.0], [0.25, 0.75]]]))
    close(waad(A), [[NAN, 0.25]])


def test_bfloat16_is_measured_in_single_precision() -> None:
    A = random_operator(5, 2, 30, 30)
    rounded = waad(DenseAttention(A.pattern.bfloat16()), 10)
    assert rounded.dtype == torch.float32
    close(rounded, waad(A, 10).float(), 0.05)


def test_gradients_flow_to_the_map() -> None:
    pattern = sheet().pattern.clone().requires_grad_()
    waad(DenseAttention(pattern), 2)[0, 3].backward()
    assert pattern.grad is not None
    # The row is taken to sum to 1, so an entry counts by what it is nearer than the window.
    close(pattern.grad[0, 3], [0.0, 0.0, -1.0, -2.0])


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (
            random_operator(0, 1, 3, 3, causal=False),
            "waad is defined for causal attention; every query of",
        ),
        (OuterAttention(normal(0, 1, 3, 2), normal(1, 1, 3, 2)), "waad needs attention that is"),
        (DenseAttention(sheet().pattern, offset=None), "positions of one sequence"),
        (DenseAttention(2 * sheet().pattern), r"sum to at most 1; those of .* reach 2 "),
        (DenseAttention(-sheet().pattern), "nowhere negative"),
    ],
)
def test_refuses_what_it_is_not_defined_for(attention: DenseAttention, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        waad(attention)


def test_refuses_an_empty_window() -> None:
    with pytest.raises(MetricError, match="waad window is 0"):
        waad(sheet(), window=0)
