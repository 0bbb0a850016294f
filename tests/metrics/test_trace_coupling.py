"""The couplings of a captured response."""

from dataclasses import replace

import pytest

from attnscope.metrics import MetricError, coupling_of, measure, rhythm_coupling
from tests.metrics.patterns import RESPONSE, small_trace


def test_takes_the_response_with_an_open_horizon() -> None:
    trace = small_trace()
    rows = list(RESPONSE)
    assert trace.entropies is not None
    expected = rhythm_coupling(
        measure(trace, "local_waad", window=4).values[rows],
        measure(trace, "global_fai", near=0, far=None).values[rows],
        measure(trace, "receiver_fai", near=0, far=None, heads=3).values[rows],
        trace.entropies[rows],
    )
    assert repr(coupling_of(trace, window=4, heads=3)) == repr(expected)


def test_refuses_a_trace_without_entropies() -> None:
    with pytest.raises(MetricError, match="coupling_of needs the token entropies"):
        coupling_of(replace(small_trace(), entropies=None))
