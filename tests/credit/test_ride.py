"""Riding on a forward pass reads what captures of each sequence alone read, and changes nothing."""

from contextlib import nullcontext

import pytest
import torch

from attnscope.credit import (
    REV,
    CreditError,
    ReadingPlan,
    completion_batch,
    packed_batch,
    read_responses,
    riding,
)
from attnscope.credit.head_calibration import calibration_of
from tests.credit.alone import alone, held_to
from tests.credit.conftest import tiny_policy

PRESET = REV.changed(near=2, far=7, window=5)
PLAN = ReadingPlan(needs=frozenset({"local_waad", "global_fai", "entropy"}), preset=PRESET)


def forward(policy, batch, rows=slice(None), **options):
    mask = batch.layout.attended(0, batch.layout.shape[0])[rows].long()
    return policy(input_ids=batch.ids[rows], attention_mask=mask, use_cache=False, **options)


def ride_of(policy, batch, plan=PLAN, **options):
    with riding(policy, batch, plan) as ride:
        forward(policy, batch, **options)
    return ride


def refused(error):
    return pytest.raises(CreditError, match=error)


def reference(policy, batch, ride, plan=PLAN):
    return alone(policy, batch, plan, ride.calibration)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_padded_batch_reads_as_each_response_alone(completions, implementation):
    policy = tiny_policy(attn_implementation=implementation)
    ride = ride_of(policy, completions)
    readings = ride.readings()
    expected = reference(policy, completions, ride)
    held_to(readings, expected)
    spans = calibration_of(expected["spans"].nanmean(0), ride.calibration.layers, PRESET)
    assert torch.equal(spans.local_heads, ride.calibration.local_heads)
    torch.testing.assert_close(spans.spans, ride.calibration.spans, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ride.spans, expected["spans"], atol=1e-5, rtol=1e-5, equal_nan=True)


def test_the_preset_s_layers_are_read(policy, completions):
    ride = ride_of(policy, completions)
    ride.readings()
    assert ride.calibration.layers == (2, 3, 4)


def test_named_heads_read_as_ranked_ones(policy, completions):
    ride = ride_of(policy, completions)
    ranked = ride.readings()
    plan = ReadingPlan(needs=PLAN.needs, preset=PRESET, calibration=ride.calibration)
    named = ride_of(policy, completions, plan).readings()
    torch.testing.assert_close(named.local_waad, ranked.local_waad, equal_nan=True)
    torch.testing.assert_close(named.global_fai, ranked.global_fai, equal_nan=True)


def test_an_extra_pass_reads_the_same(policy, completions):
    ridden = ride_of(policy, completions).readings()
    extra = read_responses(policy, completions, PLAN, micro_batch=3)
    for name in ("local_waad", "global_fai", "entropy", "log_probability"):
        one, other = getattr(ridden, name), getattr(extra, name)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, equal_nan=True)
    assert torch.equal(extra.mask, completions.layout.mask)


def test_rows_may_pass_a_few_at_a_time(policy, completions):
    whole = ride_of(policy, completions).readings()
    with riding(policy, completions, PLAN) as ride:
        for rows in (slice(0, 1), slice(1, 4)):
            forward(policy, completions, rows)
    parts = ride.readings()
    torch.testing.assert_close(parts.global_fai, whole.global_fai, equal_nan=True)
    torch.testing.assert_close(parts.entropy, whole.entropy, equal_nan=True)


@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_outputs_and_gradients_are_bit_for_bit_those_of_a_lonely_pass(completions, checkpointing):
    def run(listened):
        policy = tiny_policy().train()
        if checkpointing is not None:
            enable = getattr(policy, "activation_checkpointing_enable", None)
            enable = enable or policy.gradient_checkpointing_enable  # as verl's transformers has it
            enable({"use_reentrant": checkpointing})
            policy.enable_input_require_grads()
        with riding(policy, completions, PLAN) if listened else nullcontext() as ride:
            logits = forward(policy, completions).logits
            logits.logsumexp(-1).sum().backward()
        return logits, [parameter.grad for parameter in policy.parameters()], ride

    logits, gradients, _ = run(listened=False)
    heard_logits, heard_gradients, ride = run(listened=True)
    assert torch.equal(logits, heard_logits)
    assert all(map(torch.equal, gradients, heard_gradients))
    held_to(ride.readings(), reference(tiny_policy(), completions, ride))


def test_brain_float_policies_are_read_in_their_own_precision(completions):
    policy = tiny_policy().to(torch.bfloat16)
    ride = ride_of(policy, completions)
    held_to(ride.readings(), reference(policy, completions, ride), tolerance=5e-2)


def test_autocast_does_not_reach_the_readings(policy, completions):
    with torch.autocast("cpu", torch.bfloat16):
        ride = ride_of(policy, completions)
    readings = ride.readings()
    assert readings.local_waad.dtype == torch.float32
    held_to(readings, reference(policy, completions, ride), tolerance=8e-2)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_adapters_are_heard(completions):
    from peft import LoraConfig, get_peft_model

    policy = tiny_policy()
    plain = ride_of(policy, completions).readings()
    torch.manual_seed(3)
    adapted = get_peft_model(policy, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    ride = ride_of(adapted, completions)
    readings = ride.readings()
    assert not torch.equal(readings.global_fai[0], plain.global_fai[0])
    expected = reference(adapted.get_base_model(), completions, ride)
    held_to(readings, expected)
    held_to(read_responses(adapted, completions, PLAN), expected)


def test_packed_sequences_are_read_one_by_one(policy):
    lengths, responses = (11, 20, 14), ((4, 11), (6, 20), (14, 14))
    position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    ids = torch.randint(6, 40, position_ids.shape, generator=torch.Generator().manual_seed(2))
    own = torch.cat(
        [
            (torch.arange(length) >= first) & (torch.arange(length) < end)
            for length, (first, end) in zip(lengths, responses, strict=True)
        ]
    )[None]
    batch = packed_batch(ids, position_ids, own)
    assert [stretch.length for stretch in batch.layout.stretches] == [11, 20]
    with riding(policy, batch, PLAN) as ride:
        policy(input_ids=ids, position_ids=position_ids, use_cache=False)
    readings = ride.readings()
    held_to(readings, reference(policy, batch, ride))
    held_to(read_responses(policy, batch, PLAN), reference(policy, batch, ride))
    placed = batch.layout.to_tokens(readings.mask.float())
    assert torch.equal(placed, own.float())


@pytest.mark.parametrize("family", ["Mistral", "gpt-oss", "Gemma 2"])
def test_windows_sinks_and_soft_caps_are_read(family, completions):
    from benchmarks.tiny_models import tiny

    policy, _ = tiny(family, implementation="eager")
    plan = ReadingPlan(needs=frozenset({"local_waad", "global_fai"}), preset=PRESET)
    ids = completions.ids.clamp_max(policy.config.vocab_size - 1)
    batch = type(completions)(ids=ids, layout=completions.layout)
    ride = ride_of(policy, batch, plan)
    held_to(ride.readings(), reference(policy, batch, ride, plan))


def test_other_models_are_not_heard_and_nothing_is_left_behind(policy, completions):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = dict(ALL_ATTENTION_FUNCTIONS._global_mapping)
    with riding(policy, completions, PLAN) as ride:
        forward(tiny_policy(), completions)
    assert ALL_ATTENTION_FUNCTIONS._global_mapping == before
    assert not policy._forward_hooks
    assert not policy._forward_pre_hooks
    with pytest.raises(CreditError, match="0 of 4 rows went through the policy"):
        ride.readings()


def test_a_pass_that_fails_fails_with_its_own_error(policy, completions):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def fail(module, args):
        raise ZeroDivisionError("its own")

    before = dict(ALL_ATTENTION_FUNCTIONS._global_mapping)
    policy.model.layers[3].register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError, match="its own"), riding(policy, completions, PLAN):
        forward(policy, completions)
    assert ALL_ATTENTION_FUNCTIONS._global_mapping == before
    assert not policy._forward_hooks


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([1, 0, 2, 3], "other rows than 0 to 3 of the batch: their tokens differ"),
        ([0, 1, 2, 3, 3], "called on 5 x 29 tokens after 0 rows; the batch has 4 x 29"),
    ],
)
def test_rows_that_were_not_announced_are_refused(policy, completions, rows, error):
    with refused(error), riding(policy, completions, PLAN):
        forward(policy, completions, torch.tensor(rows))


def test_padding_that_was_not_announced_is_refused(policy, completions):
    mask = torch.zeros_like(completions.ids)
    with (
        pytest.raises(CreditError, match="their padding differ"),
        riding(policy, completions, PLAN),
    ):
        policy(input_ids=completions.ids, attention_mask=mask)


def test_a_policy_that_reads_across_sequences_is_refused(policy, completions):
    with (
        pytest.raises(CreditError, match="reads across sequences: one begins at column 2"),
        riding(policy, completions, PLAN),
    ):
        policy(input_ids=completions.ids)


def test_a_mask_of_another_kind_is_refused(policy, completions):
    columns = completions.ids.shape[1]
    mask = torch.ones(4, 1, columns, columns, dtype=torch.bool)
    with (
        pytest.raises(CreditError, match="hides other keys than the causal rule"),
        riding(policy, completions, PLAN),
    ):
        policy(input_ids=completions.ids, attention_mask=mask)


def test_a_model_that_cannot_be_heard_is_refused(completions):
    from transformers import GPTJConfig, GPTJForCausalLM

    config = GPTJConfig(n_layer=3, n_head=2, n_embd=8, rotary_dim=4, vocab_size=40, n_positions=64)
    with pytest.raises(CreditError, match="GPTJForCausalLM were not heard"):
        ride_of(GPTJForCausalLM(config), completions)


def test_a_model_without_a_configuration_is_refused(completions):
    with pytest.raises(CreditError, match="Linear has no configuration with num_hidden_layers"):
        ride_of(torch.nn.Linear(1, 1), completions)


def test_a_rule_that_reads_nothing_listens_to_nothing(policy, completions):
    plan = ReadingPlan(needs=frozenset())
    with riding(policy, completions, plan) as ride:
        assert not policy._forward_hooks
    readings = ride.readings(advantage=torch.ones(4))
    assert readings.local_waad is None
    assert torch.equal(readings.mask, completions.layout.mask)


def test_a_batch_without_responses_has_no_readings(policy, completions):
    prompts, responses = completions.ids.split([5, 24], dim=1)
    none = completion_batch(
        prompts, torch.ones_like(prompts), responses, torch.zeros_like(responses)
    )
    ride = ride_of(policy, none)
    readings = ride.readings()
    assert ride.calibration is None
    assert readings.local_waad.isnan().all()
    assert readings.entropy.isnan().all()


def test_fully_masked_rows_are_empty_responses(policy):
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    batch = completion_batch(torch.full((2, 3), 7), mask, torch.full((2, 3), 8), mask)
    readings = read_responses(policy, batch, PLAN)
    assert readings.mask.tolist() == [[True] * 3, [False] * 3]
    assert readings.local_waad[1].isnan().all()
    assert not readings.local_waad[0].isnan().any()
