"""Token credit in real TRL training steps."""

import pytest
import torch

from attnscope.credit import (
    REV,
    V1,
    Coupled,
    CreditError,
    Entropy,
    Global,
    RandomShare,
    Uniform,
    credit_aware,
    load_calibration,
)
from tests.credit.training import made, same, trained

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
PRESET = REV.changed(near=2, far=8)


@pytest.fixture(scope="module")
def grpo():
    from trl import GRPOTrainer

    return GRPOTrainer


@pytest.fixture(scope="module")
def stock(grpo, tmp_path_factory):
    return trained(made(grpo, tmp_path_factory.mktemp("stock")))[0]


@pytest.mark.parametrize("rule", [Uniform(), Coupled(preset=PRESET.changed(amplification=1.0))])
def test_weights_of_one_leave_a_run_bit_for_bit_as_it_is(grpo, stock, tmp_path, rule):
    parameters, logged = trained(made(credit_aware(grpo), tmp_path, credit=rule))
    assert same(parameters, stock)
    assert [entry["credit/weight"] for entry in logged] == [1.0, 1.0]


@pytest.mark.parametrize("loss", ["sapo", "cispo", "vespo"])
def test_every_loss_takes_token_advantages(grpo, tmp_path, loss):
    settings = {"loss_type": loss}
    plain, _ = trained(made(grpo, tmp_path, steps=1, settings=settings))
    uniform, _ = trained(
        made(credit_aware(grpo), tmp_path, steps=1, settings=settings, credit=Uniform())
    )
    random, _ = trained(
        made(credit_aware(grpo), tmp_path, steps=1, settings=settings, credit=RandomShare())
    )
    assert same(uniform, plain)
    assert not same(random, plain)


@pytest.mark.parametrize("rule", [Coupled(preset=PRESET), Global(preset=V1), Entropy()])
def test_other_weights_change_the_run_and_are_logged(grpo, stock, tmp_path, rule):
    parameters, logged = trained(made(credit_aware(grpo), tmp_path, credit=rule))
    assert not same(parameters, stock)
    for entry in logged:
        assert 0 < entry["credit/selected"] < 0.6
        assert 1 < entry["credit/weight"] < 1.5
    classes = {name.split("/")[-1] for name in logged[0] if name.startswith("credit/share/")}
    assert classes <= {"anchor", "dominated", "introductory", "uncertain"}


def test_credit_survives_accumulation_and_reuse_of_batches(grpo, tmp_path):
    settings = {
        "per_device_train_batch_size": 4,
        "steps_per_generation": 2,
        "num_iterations": 2,
        "gradient_accumulation_steps": 2,
    }
    plain, _ = trained(made(grpo, tmp_path, steps=3, settings=settings))
    uniform, _ = trained(
        made(credit_aware(grpo), tmp_path, steps=3, settings=settings, credit=Uniform())
    )
    assert same(uniform, plain)


def test_adapters_are_trained_and_read(grpo, tmp_path):
    from peft import LoraConfig

    options = {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"])}
    plain, _ = trained(made(grpo, tmp_path, **options))
    uniform, _ = trained(made(credit_aware(grpo), tmp_path, credit=Uniform(), **options))
    coupled, _ = trained(
        made(credit_aware(grpo), tmp_path, credit=Coupled(preset=PRESET), **options)
    )
    assert same(uniform, plain)
    assert not same(coupled, plain)


def test_named_heads_stay_the_same(grpo, tmp_path, policy, completions):
    from attnscope.credit import calibrate

    calibrate(policy, completions, PRESET).save(tmp_path / "heads.json")
    calibration = load_calibration(tmp_path / "heads.json")
    trainer = made(
        credit_aware(grpo), tmp_path, credit=Coupled(preset=PRESET), calibration=calibration
    )
    trained(trainer)
    assert trainer.credit_plan.calibration is calibration


def test_evaluation_is_left_alone(grpo, tmp_path):
    trainer = made(credit_aware(grpo), tmp_path, credit=Global(preset=PRESET))
    trainer.model.eval()
    inputs = [{"prompt": "w3 w4"}] * 4
    assert trainer._generate_and_score_completions(inputs)["advantages"].ndim == 1
    trainer.model.train()
    assert trainer._generate_and_score_completions(inputs)["advantages"].ndim == 2


def test_a_tool_s_tokens_get_no_credit(grpo, tmp_path):
    trainer = made(credit_aware(grpo), tmp_path, credit=Global(preset=PRESET))
    trainer.model.train()
    scored = trainer._generate_and_score_completions([{"prompt": "w3 w4"}] * 4)
    scored |= {"advantages": torch.ones(4), "tool_mask": scored["completion_mask"].clone()}
    scored["tool_mask"][:, 1] = 0
    advantages = trainer._credited(trainer._credit_pass(scored), scored)
    assert bool((advantages[:, 1] == 0).all())
    assert torch.equal(advantages != 0, scored["tool_mask"].bool())


def test_completions_that_were_all_cut_off_get_no_credit(grpo, tmp_path):
    trainer = made(
        credit_aware(grpo),
        tmp_path,
        credit=Coupled(preset=PRESET),
        settings={"mask_truncated_completions": True, "max_completion_length": 2},
    )
    parameters, _ = trained(trainer)
    assert not any(value.isnan().any() for value in parameters.values())


@pytest.mark.parametrize("loss", ["grpo", "dapo", "sapo"])
def test_sequence_ratios_are_refused(grpo, tmp_path, loss):
    settings = {"importance_sampling_level": "sequence", "loss_type": loss}
    with pytest.raises(CreditError, match="token weights act by their mean alone"):
        made(credit_aware(grpo), tmp_path, settings=settings, credit=Uniform())


def test_sequence_ratios_that_are_detached_are_fine(grpo, tmp_path):
    settings = {"importance_sampling_level": "sequence", "loss_type": "cispo"}
    made(credit_aware(grpo), tmp_path, settings=settings, credit=Uniform())


def test_trainers_with_a_loss_of_sequences_are_refused(grpo):
    from trl import RLOOTrainer
    from trl.experimental.gmpo import GMPOTrainer

    with pytest.raises(CreditError, match="RLOOTrainer is no GRPOTrainer"):
        credit_aware(RLOOTrainer)
    with pytest.raises(CreditError, match="GMPOTrainer computes a loss of its own"):
        credit_aware(GMPOTrainer)


def test_a_trainer_is_made_once(grpo):
    assert credit_aware(grpo) is credit_aware(grpo)
    assert credit_aware(grpo).__name__ == "CreditGRPOTrainer"
