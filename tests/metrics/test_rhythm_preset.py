"""The settings of the paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.metrics import RHYTHM_REV, RHYTHM_V1, MetricError, middle_layers


def test_the_two_versions_differ_in_horizon_and_sign_rule_alone() -> None:
    shared = [
        (p.window, p.near, p.share, p.quantile, p.layer_count) for p in (RHYTHM_V1, RHYTHM_REV)
    ]
    assert shared == [(10, 10, 0.4, 0.3, 5)] * 2
    assert (RHYTHM_V1.far, RHYTHM_V1.scales_negative) == (50, False)
    assert (RHYTHM_REV.far, RHYTHM_REV.scales_negative) == (100, True)


@pytest.mark.parametrize(
    ("total", "layers"),
    [
        (36, (12, 15, 18, 21, 24)),
        (32, (10, 13, 16, 18, 21)),  # steps of 2.75: 10, 12.75, 15.5, 18.25, 21
        (3, (1, 2)),
        (1, (0,)),
    ],
)
def test_layers_are_evenly_spaced_in_the_middle_third(total: int, layers: tuple[int, ...]) -> None:
    assert RHYTHM_V1.layers(total) == layers


@given(st.integers(1, 200), st.integers(2, 9))
def test_layers_exist_and_keep_both_ends(total: int, count: int) -> None:
    layers = middle_layers(total, count)
    assert layers == tuple(sorted(set(layers)))
    assert (layers[0], layers[-1]) == (total // 3, 2 * total // 3)
    assert layers[-1] < total
    assert len(layers) <= count


@pytest.mark.parametrize(("total", "count"), [(0, 5), (10, 1)])
def test_refuses_models_without_layers(total: int, count: int) -> None:
    with pytest.raises(MetricError, match=r"needs one layer and a count of two"):
        middle_layers(total, count)
