"""Coupled credit: the case worked by hand, its invariants, and what the paper leaves open."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.credit import (
    REV,
    Coupled,
    CreditError,
    FixedThreshold,
    Global,
    emitting_row,
    nearest_change,
)
from tests.credit.batches import SETTINGS, by_hand, random_readings


def by_hand_rule(**changes) -> Coupled:
    settings = {
        "look_back": 1,
        "waad_threshold": FixedThreshold(1.5),
        "change_threshold": FixedThreshold(1.5),
    }
    return Coupled(**(settings | changes))


def test_the_case_worked_by_hand():
    credit = by_hand_rule().assign(by_hand())
    assert credit.weights.tolist() == [[1.25, 1.25, 1.0, 1.5, 1.0]]
    assert credit.classes["dominated"].nonzero()[:, 1].tolist() == [1]
    assert credit.classes["introductory"].nonzero()[:, 1].tolist() == [0]
    assert credit.classes["anchor"].nonzero()[:, 1].tolist() == [3]
    assert float((credit.weights - 1).sum()) == 1.0


@SETTINGS
@given(st.integers(0, 200))
def test_nothing_given_back_is_global_credit(seed):
    readings = random_readings(seed)
    coupled = Coupled(back_share=0.0).assign(readings)
    assert torch.equal(coupled.weights, Global().assign(readings).weights)


@SETTINGS
@given(st.integers(0, 200))
def test_no_dominated_anchor_is_global_credit(seed):
    readings = random_readings(seed)
    coupled = Coupled(waad_threshold=FixedThreshold(-1.0)).assign(readings)
    assert not coupled.classes["dominated"].any()
    assert torch.equal(coupled.weights, Global().assign(readings).weights)


@SETTINGS
@given(st.integers(0, 200), st.floats(0, 1), st.integers(1, 4), st.floats(1, 3))
def test_the_bonus_is_moved_and_never_made(seed, share, look_back, amplification):
    preset = REV.changed(amplification=amplification)
    readings = random_readings(seed)
    credit = Coupled(preset=preset, back_share=share, look_back=look_back).assign(readings)
    counts = {name: int(members.sum()) for name, members in credit.classes.items()}
    bonus = float((credit.weights[readings.mask] - 1).sum())
    expected = counts["anchor"] + (1 - share) * counts["dominated"] + share * counts["introductory"]
    assert bonus == pytest.approx((amplification - 1) * expected, abs=1e-4)
    anchors = counts["anchor"] + counts["dominated"]
    assert bonus <= (amplification - 1) * anchors + 1e-4


@SETTINGS
@given(st.integers(0, 200))
def test_introductory_tokens_stand_shortly_before_a_dominated_anchor(seed):
    credit = Coupled(look_back=2).assign(random_readings(seed))
    for row, token in credit.classes["introductory"].nonzero().tolist():
        assert credit.classes["dominated"][row, token + 1 : token + 3].any()


def test_a_token_that_introduces_two_anchors_is_counted_once():
    readings = by_hand(
        local_waad=torch.tensor([[torch.nan, 9.0, 1.0, 1.0, 1.0, 1.0]]),
        global_fai=torch.tensor([[0.0, 0.6, 0.5, 0.0, 0.0]]),
    )
    credit = by_hand_rule(look_back=2, waad_threshold=FixedThreshold(1.0)).assign(readings)
    assert credit.weights.tolist() == [[1.25, 1.25, 1.25, 1.0, 1.0]]


def test_an_introductory_token_that_is_an_anchor_gets_both_bonuses():
    readings = by_hand(global_fai=torch.tensor([[0.7, 0.6, 0.2, 0.1, 0.3]]))
    assert by_hand_rule().assign(readings).weights.tolist() == [[1.75, 1.25, 1.0, 1.0, 1.0]]


def test_the_nearest_change_that_suffices_may_introduce():
    readings = by_hand(
        local_waad=torch.tensor([[torch.nan, 9.0, 4.0, 1.0, 1.0, 1.0]]),  # changes 5, 3, 0, 0
        global_fai=torch.tensor([[0.0, 0.0, 0.6, 0.0, 0.0]]),
    )
    largest = by_hand_rule(look_back=2).assign(readings)
    nearest = by_hand_rule(look_back=2, introduce=nearest_change).assign(readings)
    assert largest.classes["introductory"].nonzero()[:, 1].tolist() == [0]
    assert nearest.classes["introductory"].nonzero()[:, 1].tolist() == [1]


def test_the_emitting_row_moves_waad_and_leaves_fai():
    preset = REV.changed(rows=emitting_row)
    readings = by_hand(local_waad=torch.tensor([[3.0, 1.0, 1.0, 2.0, 0.5, 0.5]]))
    # Token t is judged by column t: WAAD 3, 1, 1, 2, .5 and changes 2, 0, 1, 1.5, 0.
    assert by_hand_rule(preset=preset).assign(readings).weights.tolist() == [
        [1.25, 1.25, 1.0, 1.5, 1.0]
    ]


def test_tokens_of_others_never_introduce():
    mask = torch.tensor([[False, True, True, True, True]])  # token 0 is a tool's
    credit = by_hand_rule().assign(by_hand(mask=mask))
    assert credit.weights.tolist() == [[0.0, 1.5, 1.0, 1.5, 1.0]]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(CreditError, match="back_share is 1\\.5"):
        Coupled(back_share=1.5)
    with pytest.raises(CreditError, match="look_back 0"):
        Coupled(look_back=0)
