"""The plug-in in the real verl, on the processor: real Ray, queue, workers, engine and losses.

What is missing is the rollout, which needs a GPU: finished responses are put into the queue.
"""

from functools import partial

import pytest
import samples
import small_run
import torch

from attnscope.credit import (
    REV,
    CreditError,
    calibrate,
    load_calibration,
    padded_batch,
    plan_for,
    read_responses,
    rule_named,
)
from attnscope.credit.verl_trainer import require_token_credit, verl_credit_trainer

NUMBERS = {"near": 1, "far": 6}
HEADS = "+credit.calibration=FOLDER/heads.json"
COUPLED = ("+credit.rule=coupled", "+credit.numbers={near: 1, far: 6}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    policy = samples.policy()
    small_run.write_inputs(folder, policy)
    calibrate(policy, padded(), REV.changed(**NUMBERS)).save(folder / "heads.json")
    small_run.start()
    yield folder
    small_run.stop()


@pytest.fixture(scope="session")
def run(folder):
    """Return what makes a trainer and runs one step of it."""

    def run(name, *changes, make=verl_credit_trainer):
        config = small_run.configuration(folder, *changes)
        trainer = small_run.trainer_of(config, make)
        try:
            return small_run.step(trainer, name, samples.sequences())
        finally:
            small_run.release(trainer)

    return run


@pytest.fixture(scope="session")
def stock(run):
    return run("stock", make=lambda trainer: trainer)


@pytest.fixture(scope="session")
def coupled(run, folder):
    return run("coupled", *COUPLED, f"+credit.calibration={folder / 'heads.json'}")


def padded():
    """Return the responses in rows that are padded on the right."""
    ids, own = [], []
    for prompt, response, mask in samples.sequences():
        ids.append(torch.cat([prompt, response]))
        own.append(torch.cat([torch.zeros_like(prompt), mask]))
    rows, masks = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (ids, own))
    return padded_batch(rows, rows != 0, masks)


def test_the_plug_in_registers_itself_here_and_in_workers(folder):
    import ray

    worker = ray.remote(small_run.registered_modes)
    for modes in (small_run.registered_modes(), ray.get(worker.remote())):
        assert modes["credit_sync"] == "CreditPPOTrainerSync"


def test_credit_of_one_trains_bit_for_bit_as_verl_itself(run, stock):
    data, metrics, after = run("uniform", "+credit.rule=uniform")
    expected, _, expected_after = stock
    assert torch.equal(data["advantages"].values(), expected["advantages"].values())
    assert torch.equal(after, expected_after)
    assert metrics["credit/weight"] == 1.0


def test_advantages_are_weighed_by_what_the_policy_attends_to(stock, coupled, folder):
    data, metrics, after = coupled
    expected, _, expected_after = stock
    rule = rule_named("coupled", numbers=NUMBERS)
    plan = plan_for(rule, load_calibration(folder / "heads.json"))
    weights = rule.assign(read_responses(samples.policy(), padded(), plan)).weights
    for number, (found, before) in enumerate(
        zip(data["advantages"].unbind(), expected["advantages"].unbind(), strict=True)
    ):
        mask = samples.sequences()[number][2].bool()
        torch.testing.assert_close(found[mask], (before * weights[number, : len(before)])[mask])
        assert torch.equal(found[~mask], before[~mask])
    assert 1 < metrics["credit/weight"] < 1.5
    assert metrics["credit/share/anchor"] > 0
    assert not torch.equal(after, expected_after)


def test_listening_leaves_the_log_probabilities_as_they_are(stock, coupled):
    for field in ("old_log_probs", "entropy"):
        assert torch.equal(stock[0][field].values(), coupled[0][field].values())


def test_padded_rows_are_read_as_packed_ones(run, coupled, folder):
    changes = (*COUPLED, f"+credit.calibration={folder / 'heads.json'}")
    data, _, _ = run("padded", *changes, "actor_rollout_ref.model.use_remove_padding=False")
    for field in ("credit_local_waad", "credit_global_fai", "advantages"):
        found, expected = data[field].values(), coupled[0][field].values()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_entropies_and_tokens_come_from_verl_itself(run, stock):
    data, metrics, _ = run("entropy", "+credit.rule=entropy")
    assert "credit_local_waad" not in data
    assert metrics["credit/share/uncertain"] == pytest.approx(0.4, abs=0.05)
    own = data["response_mask"].values() == 1
    ratio = data["advantages"].values()[own] / stock[0]["advantages"].values()[own]
    assert sorted(set(ratio.round(decimals=4).tolist())) == [1.0, 1.5]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            ("+credit.rule=uniform", "actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean"),
            "geo_mean",
        ),
        (
            (*COUPLED, HEADS, "actor_rollout_ref.actor.strategy=megatron"),
            "does not run a model of transformers",
        ),
        (
            (*COUPLED, HEADS, "algorithm.rollout_correction.bypass_mode=True"),
            "leaves out the pass",
        ),
        (COUPLED, "name them: calibrate"),
        ((), "it needs a rule"),
        (("+credit.rule=uniform", "+credit.gamma=2"), "it needs a rule .* and may hold"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(folder, changes, told):
    from verl.trainer.ppo.v1 import get_trainer_cls

    mode = "trainer.v1.trainer_mode=credit_sync"
    changes = [change.replace("FOLDER", str(folder)) for change in changes]
    config = small_run.configuration(folder, mode, *changes)
    with pytest.raises(CreditError, match=told):
        get_trainer_cls("credit_sync")(config)


def test_exactly_the_losses_that_lose_token_credit_are_refused(folder):
    """Weights of mean one: a loss that is blind to them gives the gradient of no weights."""
    from verl.trainer.ppo import core_algos
    from verl.utils.config import omega_conf_to_dataclass

    config = small_run.configuration(folder)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    refused = set()
    for name in core_algos.POLICY_LOSS_REGISTRY:
        config.actor_rollout_ref.actor.policy_loss.loss_mode = name
        try:
            require_token_credit(config, plan_for(rule_named("uniform")))
        except CreditError:
            refused.add(name)
    gradients = partial(gradient, core_algos, actor)
    blind = {
        name
        for name in core_algos.POLICY_LOSS_REGISTRY
        if torch.allclose(gradients(name, weighted=True), gradients(name, weighted=False))
    }
    assert blind == refused == {"geo_mean"}


def gradient(core_algos, actor, name, *, weighted):
    """Return the gradient of a policy loss by the log-probabilities of two responses."""
    generator = torch.Generator().manual_seed(3)
    old = -torch.rand(2, 6, generator=generator) - 0.5
    new = (old + 0.05 * torch.randn(2, 6, generator=generator)).requires_grad_()
    weights = torch.tensor([1.5, 0.5, 1.0, 1.25, 0.75, 1.0]) if weighted else torch.ones(6)
    settings = {
        "rollout_correction": {"loss_type": "reinforce"},
        "dro_beta": 0.1,
        "clip_cov_ratio": 0.2,
        "kl_cov_ratio": 0.2,
    }
    object.__setattr__(actor, "policy_loss", Settings(vars(actor.policy_loss) | settings))
    actor.global_batch_info.update(dp_size=1, batch_num_tokens=12, global_batch_size=2)
    torch.manual_seed(0)
    loss, _ = core_algos.get_policy_loss_fn(name)(
        old_log_prob=old,
        log_prob=new,
        advantages=torch.tensor([[1.0], [-1.0]]) * weights,
        response_mask=torch.ones(2, 6),
        config=actor,
    )
    return torch.autograd.grad(loss, new)[0]


class Settings(dict):
    """A configuration read by attribute or by key."""

    __getattr__ = dict.get
