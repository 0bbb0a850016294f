"""Credit from the trainer's own passes: the same weights as from a pass of our own."""

import pytest

from attnscope.credit import REV, Coupled, Entropy, Uniform, credit_aware, credit_riding
from tests.credit.training import made, same, trained

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
PRESET = REV.changed(near=2, far=8)
REUSED = {"steps_per_generation": 2, "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def grpo():
    from trl import GRPOTrainer

    return GRPOTrainer


@pytest.mark.parametrize("rule", [Coupled(preset=PRESET), Entropy()])
@pytest.mark.parametrize("settings", [{}, REUSED])
def test_riding_trains_exactly_as_a_pass_of_its_own(grpo, tmp_path, rule, settings):
    ways = [
        trained(made(kind(grpo), tmp_path, steps=3, settings=settings, credit=rule))
        for kind in (credit_aware, credit_riding)
    ]
    assert same(ways[0][0], ways[1][0])
    for one, other in zip(ways[0][1], ways[1][1], strict=True):
        assert one == pytest.approx(other)


@pytest.mark.parametrize("settings", [{}, REUSED])
def test_no_pass_is_added(grpo, tmp_path, settings):
    def count(kind, **options):
        trainer = made(kind, tmp_path, steps=1, settings=settings, **options)
        called = []
        trainer.model.model.layers[0].register_forward_hook(lambda *_: called.append(1))
        trained(trainer)
        return len(called)

    rule = Coupled(preset=PRESET)
    assert count(credit_riding(grpo), credit=rule) == count(grpo)
    assert count(credit_aware(grpo), credit=rule) > count(grpo)


def test_a_rule_that_reads_nothing_is_uniform(grpo, tmp_path):
    plain, _ = trained(made(grpo, tmp_path))
    uniform, logged = trained(made(credit_riding(grpo), tmp_path, credit=Uniform()))
    assert same(uniform, plain)
    assert logged[0]["credit/weight"] == 1.0


def test_a_reference_model_s_pass_is_not_taken_for_the_policy_s(grpo, tmp_path):
    from peft import LoraConfig

    options = {"settings": {"beta": 0.1}, "credit": Coupled(preset=PRESET)}
    ways = [
        trained(
            made(kind(grpo), tmp_path, peft_config=LoraConfig(target_modules=["q_proj"]), **options)
        )[0]
        for kind in (credit_aware, credit_riding)
    ]
    assert same(*ways)
