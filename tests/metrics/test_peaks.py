"""Strict local maxima."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.metrics import local_peaks
from tests.metrics.patterns import NAN

SERIES = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, NAN]), max_size=12)


def slow_peaks(series: list[float]) -> list[bool]:
    last = len(series) - 1
    return [
        0 < i < last and series[i] > series[i - 1] and series[i] > series[i + 1]
        for i in range(len(series))
    ]


@settings(deadline=None)
@given(SERIES)
def test_agrees_with_a_loop_over_lists(series: list[float]) -> None:
    assert local_peaks(torch.tensor(series, dtype=torch.float32)).tolist() == slow_peaks(series)


def test_ends_plateaus_and_neighbors_of_nan_are_no_peaks() -> None:
    series = torch.tensor([[9.0, 1.0, 2.0, 2.0, 1.0], [0.0, 5.0, NAN, 5.0, 0.0]])
    assert not bool(local_peaks(series).any())
