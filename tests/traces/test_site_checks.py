"""Shapes of values and gradients are compared with the map's before anything is multiplied."""

import pytest

from attnscope.traces import Site, TraceError
from attnscope.traces.observations import SiteSummary
from attnscope.traces.site_checks import check_factors

SUMMARY = SiteSummary(
    site=Site(stack="s", layer=0, path="s.0"),
    kind="DenseAttention",
    shape=(4, 5, 6),
    causal=False,
    offset=None,
    axes=("token", "token"),
    has_gradient=True,
)


@pytest.mark.parametrize(
    ("value", "gradient", "fault"),
    [
        ((2, 6, 8), (4, 5, 7), "have widths 8 and 7"),
        ((6, 8), (4, 5, 8), r"values of s.0 have shape \(6, 8\)"),
        ((0, 6, 8), None, "values of s.0"),
        ((3, 6, 8), None, "4 heads read 6 keys"),
        ((4, 5, 8), None, "4 heads read 6 keys"),
        (None, (4, 6, 8), "there are 4 heads and 5 queries"),
        (None, (4, 5), "gradient of s.0"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(value, gradient, fault):
    with pytest.raises(TraceError, match=fault):
        check_factors(SUMMARY, value, gradient)


def test_values_may_be_shared_by_heads_and_both_may_be_missing():
    check_factors(SUMMARY, (2, 6, 8), (4, 5, 8))
    check_factors(SUMMARY, None, None)
