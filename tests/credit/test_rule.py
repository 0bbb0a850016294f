"""What all rules promise, and the sign rule and normalization that they share."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.credit import (
    REV,
    RULES,
    V1,
    AmplifyingRule,
    Coupled,
    CreditError,
    Global,
    Local,
    RandomShare,
    Readings,
    Rule,
    TokenClass,
    find_rule,
    mean_one,
)
from tests.credit.batches import SETTINGS, by_hand, random_readings

NAMES = list(RULES)
OF_THE_BATCH = ("random_share", "position_matched", "entropy_mask")
AMPLIFYING = [name for name in NAMES if isinstance(find_rule(name), AmplifyingRule)]


@pytest.mark.parametrize("name", NAMES)
@SETTINGS
@given(st.integers(0, 30))
def test_weights_are_detached_defined_and_zero_outside_the_mask(name, seed):
    readings = random_readings(seed)
    rule = find_rule(name)
    assert isinstance(rule, Rule)
    credit = rule.assign(readings)
    assert credit.weights.dtype == torch.float32
    assert not credit.weights.requires_grad
    assert not credit.weights.isnan().any()
    assert bool((credit.weights[~readings.mask] == 0).all())
    assert all(not (members & ~readings.mask).any() for members in credit.classes.values())
    needed = {field: getattr(readings, field) for field in rule.needs}
    alone = dataclasses.replace(Readings(mask=readings.mask, draw=seed), **needed)
    assert torch.equal(rule.assign(alone).weights, credit.weights)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_THE_BATCH])
def test_responses_do_not_depend_on_each_other(name):
    readings = random_readings(5, batch=6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    moved = {
        field.name: getattr(readings, field.name)[order]
        for field in dataclasses.fields(readings)
        if isinstance(getattr(readings, field.name), torch.Tensor)
    }
    rule = find_rule(name)
    permuted = rule.assign(Readings(**moved, draw=readings.draw))
    assert torch.equal(permuted.weights, rule.assign(readings).weights[order])


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_any_token_gets_no_weight(name):
    readings = random_readings(0)
    for width in (12, 0):
        nothing = {
            field: getattr(readings, field)[..., : width + (field in ("entropy", "local_waad"))]
            for field in find_rule(name).needs
            if field != "advantage"
        }
        empty = Readings(
            mask=torch.zeros(4, width, dtype=torch.bool),
            advantage=readings.advantage,
            **nothing,
        )
        assert float(find_rule(name).assign(empty).weights.sum()) == 0.0


@pytest.mark.parametrize("name", AMPLIFYING)
def test_no_amplification_is_uniform(name):
    rule = find_rule(name)
    if "rule" in {field.name for field in dataclasses.fields(rule)}:
        inner = dataclasses.replace(rule.rule, preset=REV.changed(amplification=1.0))
        rule = dataclasses.replace(rule, rule=inner)
    else:
        rule = dataclasses.replace(rule, preset=rule.preset.changed(amplification=1.0))
    readings = random_readings(1)
    assert torch.equal(rule.assign(readings).weights, readings.mask.float())


@pytest.mark.parametrize("rule", [Coupled, Global, Local, RandomShare])
def test_the_first_version_scales_nonnegative_advantages_only(rule):
    readings = random_readings(2)
    kept = dataclasses.replace(readings, advantage=torch.tensor([1.0, -1.0, 0.0, torch.nan]))
    both, positive = rule(preset=REV).assign(kept), rule(preset=V1).assign(kept)
    sign = torch.tensor([True, False, True, False])
    assert torch.equal(positive.weights[sign], both.weights[sign])
    assert torch.equal(positive.weights[~sign], kept.mask[~sign].float())
    assert not any(members[~sign].any() for members in positive.classes.values())


def test_the_first_version_needs_to_know_the_sign():
    with pytest.raises(CreditError, match="Global needs advantage"):
        Global(preset=V1).assign(by_hand(advantage=None))
    assert Global(preset=REV).assign(by_hand(advantage=None)).weights.sum() == 6.0


def test_a_response_with_an_unknown_advantage_is_left_alone_and_stays_unknown():
    credit = Global().assign(by_hand(advantage=torch.tensor([torch.nan])))
    assert credit.weights.tolist() == [[1.0] * 5]
    assert credit.apply(torch.tensor([torch.nan])).isnan().all()


def test_signs_may_differ_from_token_to_token():
    advantage = torch.tensor([[1.0, -1.0, 1.0, 1.0, 1.0]])
    credit = Global(preset=V1).assign(by_hand(advantage=advantage))
    assert credit.weights.tolist() == [[1.0, 1.0, 1.0, 1.5, 1.0]]


def test_a_response_may_keep_its_whole_weight():
    credit = Global(preset=REV.changed(normalize=mean_one)).assign(by_hand())
    assert float(credit.weights.mean()) == pytest.approx(1.0)
    assert float(credit.weights.max() / credit.weights.min()) == pytest.approx(1.5)


def test_the_share_is_taken_of_the_tokens_inside_the_mask():
    mask = torch.tensor([[True, True, True, False, False]])  # 1.2 of 3
    assert Global().assign(by_hand(mask=mask)).weights.tolist() == [[1.0, 1.5, 1.0, 0.0, 0.0]]


def test_a_token_class_is_a_rule_too():
    assert isinstance(TokenClass(tokens=frozenset({1})), AmplifyingRule)
