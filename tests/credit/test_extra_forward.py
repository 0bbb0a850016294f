"""A forward pass of our own: from the first token on, without side effects."""

import pytest
import torch

from attnscope.credit import (
    REV,
    CreditError,
    Global,
    HeadCalibration,
    ReadingPlan,
    TokenBatch,
    calibrate,
    completion_batch,
    plan_for,
    read_responses,
    riding,
)
from attnscope.credit.extra_forward import evaluating
from attnscope.probes import Measuring, Subject, capture
from tests.credit.alone import alone, held_to
from tests.credit.conftest import tiny_policy

PRESET = REV.changed(near=2, far=7)
PLAN = ReadingPlan(needs=frozenset({"local_waad", "global_fai"}), preset=PRESET)


def test_learned_positions_count_from_the_first_token(completions):
    from benchmarks.tiny_models import tiny

    policy, _ = tiny("GPT-2")
    calibration = calibrate(policy, completions, PRESET)
    plan = ReadingPlan(needs=PLAN.needs, preset=PRESET, calibration=calibration)
    held_to(
        read_responses(policy, completions, plan), alone(policy, completions, plan, calibration)
    )


def test_modes_gradients_and_random_numbers_are_left_alone(completions):
    policy = tiny_policy(attention_dropout=0.5).train()
    policy.model.layers[0].eval()
    modes = [module.training for module in policy.modules()]
    state = torch.random.get_rng_state()
    first, again = (read_responses(policy, completions, PLAN) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in policy.modules()] == modes
    assert all(parameter.grad is None for parameter in policy.parameters())
    torch.testing.assert_close(first.global_fai, again.global_fai, equal_nan=True)


def test_modes_are_restored_after_an_error():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    with pytest.raises(NotImplementedError), evaluating(module):
        torch.nn.Module()(module.training)
    assert [part.training for part in module] == [True, False]
    assert module.training


def test_only_what_is_read_is_computed(policy, completions):
    kept = []
    policy.lm_head.register_forward_hook(lambda module, args, output: kept.append(output.shape[1]))
    read_responses(policy, completions, PLAN)
    read_responses(policy, completions, ReadingPlan(needs=frozenset({"entropy"})))
    read_responses(policy, completions, ReadingPlan(needs=frozenset()))
    assert kept == [1, 29]  # from the row before the earliest response on


def test_a_calibration_ranks_heads_and_reads_no_more(policy, completions):
    calibration = calibrate(policy, completions, PRESET, micro_batch=2)
    with riding(policy, completions.left_aligned(), PLAN) as ride:
        policy(input_ids=completions.left_aligned().ids)
    ride.readings()
    assert torch.equal(calibration.local_heads, ride.calibration.local_heads)
    torch.testing.assert_close(calibration.spans, ride.calibration.spans)
    nothing = completion_batch(*(torch.zeros(1, 3).long() for _ in range(4)))
    with pytest.raises(CreditError, match="no response has a token"):
        calibrate(policy, nothing, PRESET)


def test_receiver_heads_come_from_a_calibration(policy, completions):
    with pytest.raises(CreditError, match="receiver heads are not ranked batch by batch"):
        ReadingPlan(needs=frozenset({"receiver_fai"}))
    calibration = calibrate(policy, completions, PRESET)
    with pytest.raises(CreditError, match="the calibration has no receiver_heads"):
        ReadingPlan(needs=frozenset({"receiver_fai"}), calibration=calibration)
    tokens = {"input_ids": completions.ids[:1]}
    sentences = tuple((start, start + 3) for start in range(0, 27, 3))
    options = {"receiver_score": {"sentences": sentences, "proximity": 2}}
    recorder = Measuring("receiver_score", options=options)
    scores = capture(Subject(policy), tokens, calibration.layers, into=recorder)["receiver_score"]
    named = calibration.with_receivers(scores.values, count=3)
    assert int(named.receiver_heads.sum()) == 3
    plan = ReadingPlan(needs=frozenset({"receiver_fai"}), preset=PRESET, calibration=named)
    received = read_responses(policy, completions, plan).receiver_fai
    swapped = HeadCalibration(
        layers=named.layers,
        spans=named.spans,
        local_heads=named.local_heads,
        global_heads=named.receiver_heads,
    )
    plan = ReadingPlan(needs=frozenset({"global_fai"}), preset=PRESET, calibration=swapped)
    expected = read_responses(policy, completions, plan).global_fai
    torch.testing.assert_close(received, expected, equal_nan=True)


def test_a_plan_follows_its_rule(policy, completions):
    rule = Global(preset=PRESET)
    plan = plan_for(rule, extra=("entropy",))
    readings = read_responses(policy, completions, plan, advantage=torch.ones(4))
    assert readings.local_waad is None
    assert readings.entropy is not None
    weights = rule.assign(readings).weights
    assert weights.shape == (4, 24)
    assert float(weights[3].sum()) == 0.0
    assert torch.equal(readings.ids[0], completions.ids[0, 5:])


def test_tokens_and_layout_must_fit(completions):
    with pytest.raises(CreditError, match=r"ids have shape \(4, 28\), the layout has \(4, 29\)"):
        TokenBatch(ids=completions.ids[:, 1:], layout=completions.layout)
