"""Massive activations on the case worked by hand and against sorting lists."""

import pytest
import torch

from attnscope.metrics import (
    MetricError,
    largest_activations,
    massive_activations,
    median_activation,
)
from tests.metrics.patterns import close, normal

MEDIAN = [0.2] * 9


def hidden(*entries: float) -> torch.Tensor:
    return torch.tensor([[*MEDIAN, *entries]])


def test_a_thousand_times_the_median_is_massive() -> None:
    assert massive_activations(hidden(250.0)).nonzero().tolist() == [[0, 9]]  # 1,250 times
    assert not bool(massive_activations(hidden(150.0)).any())  # 750 times
    assert bool(massive_activations(hidden(-150.0), tolerance=0.25).any())
    assert bool(massive_activations(hidden(150.0), ratio=750.0 - 1e-3).any())


def test_a_small_entry_is_never_massive() -> None:
    small = hidden(1.0) / 1000
    small[0, -1] = 99.0
    assert not bool(massive_activations(small).any())
    assert not bool(massive_activations(hidden(100.0), ratio=1.0).any())  # above 100, strictly


def test_agrees_with_sorting_lists() -> None:
    state = normal(0, 7, 11)
    magnitudes = sorted(abs(x) for row in state.tolist() for x in row)
    close(largest_activations(state, 5), magnitudes[::-1][:5])
    close(median_activation(state), magnitudes[38])
    close(
        median_activation(state[:, :10]),
        sorted(abs(x) for x in state[:, :10].flatten().tolist())[34],
    )


def test_bfloat16_is_measured_in_single_precision() -> None:
    assert largest_activations(normal(0, 3, 4).bfloat16()).dtype == torch.float32


def test_refuses_what_it_cannot_answer() -> None:
    with pytest.raises(MetricError, match=r"hidden state \(1, 2\) has no 3 largest entries"):
        largest_activations(torch.zeros(1, 2))
    with pytest.raises(MetricError, match="tolerance is 2"):
        massive_activations(hidden(), tolerance=2.0)
