"""`rhythm` against the three metrics that it joins."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention
from attnscope.metrics import MetricError, fai, head_span, rhythm, waad
from tests.metrics.patterns import close, operators, sheet


@settings(max_examples=25, deadline=None)
@given(operators(), st.integers(1, 12), st.integers(0, 6), st.integers(0, 8))
def test_one_band_gives_what_three_metrics_give(
    attention: DenseAttention, window: int, near: int, more: int
) -> None:
    rows = range(attention.queries // 2, attention.queries)
    beat = rhythm(attention, window=window, near=near, far=near + more, queries=rows)
    close(beat.waad, waad(attention, window))
    close(beat.fai, fai(attention, near, near + more, rows))
    close(beat.span, head_span(attention, rows))


@pytest.mark.parametrize("options", [{"window": 0}, {"near": 3, "far": 2}, {"near": -1}])
def test_refuses_empty_windows_and_horizons(options: dict[str, Any]) -> None:
    with pytest.raises(MetricError, match="it needs window >= 1 and 0 <= near <= far"):
        rhythm(sheet(), **options)
