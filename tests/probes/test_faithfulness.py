"""Deletion and insertion curves on targets whose curves are known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.probes import (
    CaptureError,
    Logit,
    TokenPresence,
    deletion_curve,
    faithfulness_table,
    insertion_curve,
)

WEIGHTS = torch.tensor([3.0, -1.0, 5.0, 0.0])


def linear(there: torch.Tensor) -> torch.Tensor:
    return there @ WEIGHTS


def test_curves_worked_by_hand() -> None:
    deleted = deletion_curve(linear, WEIGHTS)
    assert deleted.values.tolist() == [7.0, 2.0, -1.0, -1.0, 0.0]
    assert deleted.shares.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert deleted.area == pytest.approx((7 / 2 + 2 - 1 - 1 + 0) / 4)
    inserted = insertion_curve(linear, WEIGHTS)
    assert inserted.values.tolist() == [0.0, 5.0, 8.0, 8.0, 7.0]
    assert inserted.area == pytest.approx((5 + 8 + 8 + 3.5) / 4)


def test_positions_without_credit_stay() -> None:
    credit = torch.tensor([torch.nan, 1.0, 2.0, torch.nan])
    assert deletion_curve(linear, credit).values.tolist() == [7.0, 2.0, 3.0]
    assert insertion_curve(linear, credit).values.tolist() == [3.0, 8.0, 7.0]


def test_fewer_points_skip_tokens() -> None:
    curve = deletion_curve(linear, WEIGHTS, points=2)
    assert curve.values.tolist() == [7.0, -1.0, 0.0]
    assert curve.shares.tolist() == [0.0, 0.5, 1.0]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8), st.integers(0, 99))
def test_no_order_beats_that_of_a_linear_target_s_weights(weights: list[int], seed: int) -> None:
    true = torch.tensor(weights, dtype=torch.float32)

    def target(there: torch.Tensor) -> torch.Tensor:
        return there @ true

    other = torch.rand(len(weights), generator=torch.Generator().manual_seed(seed))
    assert deletion_curve(target, true).area <= deletion_curve(target, other).area + 1e-4
    assert insertion_curve(target, true).area >= insertion_curve(target, other).area - 1e-4
    # what one order deletes, its reverse inserts
    backward = insertion_curve(target, -true)
    reversed_values = deletion_curve(target, true).values.flip(0)
    if len(set(weights)) == len(weights):
        torch.testing.assert_close(backward.values, reversed_values)


def test_credit_is_compared_with_random_orders() -> None:
    table = faithfulness_table(linear, WEIGHTS, orders=20)
    assert (table.gain > 0).all()
    worst = faithfulness_table(linear, -WEIGHTS, orders=20)
    assert (worst.gain < 0).all()
    assert table.random.tolist() == worst.random.tolist()
    assert table.random["deletion"] == pytest.approx(3.5, abs=1.0)  # a random order's mean


def test_a_model_s_tokens_are_deleted(subject, tokens) -> None:
    encoded = subject.encode({"input_ids": tokens[:, :5]})
    presence = TokenPresence(subject, encoded, target=Logit(7))
    curve = deletion_curve(presence, torch.arange(5.0))
    with torch.no_grad():
        assert float(curve.values[0]) == pytest.approx(float(presence(presence.whole)[0]))
        there = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
        assert float(curve.values[2]) == pytest.approx(float(presence(there)[0]))


def test_what_has_no_curve_is_refused() -> None:
    with pytest.raises(CaptureError, match="got 0 and 20"):
        deletion_curve(linear, torch.full((4,), torch.nan))
    with pytest.raises(CaptureError, match="got 4 and 0"):
        insertion_curve(linear, WEIGHTS, points=0)
    with pytest.raises(CaptureError, match="at least 2; got 1"):
        faithfulness_table(linear, WEIGHTS, orders=1)
