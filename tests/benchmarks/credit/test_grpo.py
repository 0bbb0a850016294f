"""The GRPO step, held to TRL's own, and its arms."""

from dataclasses import replace

import pytest
import torch

from attnscope.credit import completion_batch, token_advantages
from benchmarks.credit.arms import ARMS, SCALED, find_arms
from benchmarks.credit.grpo import GROUP, Rollout, group_advantages, policy_loss, roll_out, update
from benchmarks.credit.policy import build_policy
from benchmarks.credit.replay import label_batch
from benchmarks.credit.run import calibration_for
from benchmarks.credit.task import (
    PAD,
    generator_for,
    problems,
    prompt_ids,
    stream_problems,
    write_response,
)


def gold_rollout(seed=0, prompts=3):
    """Responses as the supervised policies were taught: some right, some not."""
    generator = generator_for("test", seed)
    stream = stream_problems(generator, "train")
    repeated = [problem for problem, _ in zip(stream, range(prompts), strict=False)] * GROUP
    repeated.sort(key=lambda problem: problem.key)
    written = [write_response(problem, generator) for problem in repeated]
    width = max(map(len, written))
    responses = torch.tensor([row + [PAD] * (width - len(row)) for row in written])
    labels = label_batch(repeated, responses)
    mask = responses != PAD
    return Rollout(
        prompts=torch.tensor([prompt_ids(problem) for problem in repeated]),
        responses=responses,
        mask=mask,
        labels=labels,
        rewards=labels.solved.float(),
        tokens=int(mask.sum()),
    )


def stepped(arm, steps=1, rollouts=None):
    """Return a policy after a few steps on fixed batches, and what was kept of the last one."""
    policy = build_policy(0).eval()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.0)
    calibration = calibration_for(policy, arm, gold_rollout(3))
    kept = {}
    for step, rollout in enumerate(rollouts or [gold_rollout(seed) for seed in range(steps)]):
        rule = arm.rule(rollout, 1)
        kept = update(policy, optimizer, rollout, rule, calibration=calibration, draw=step)
    return torch.cat([weight.detach().flatten() for weight in policy.parameters()]), kept


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_advantages_loss_and_gradient_are_those_of_trl(tmp_path):
    from trl import GRPOTrainer

    from tests.credit.training import made, trained

    seen = {}

    class Recording(GRPOTrainer):
        def _calculate_rewards(self, *args):
            seen["rewards"] = super()._calculate_rewards(*args)
            return seen["rewards"]

        def _generate_and_score_completions(self, inputs):
            seen["batch"] = super()._generate_and_score_completions(inputs)
            return seen["batch"]

        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            parameters = list(model.parameters())
            seen["loss"] = loss.detach()
            seen["gradients"] = torch.autograd.grad(loss, parameters, retain_graph=True)
            seen["ours"] = our_loss(model, seen["batch"], seen["rewards"])
            seen["our gradients"] = torch.autograd.grad(seen["ours"], parameters)
            return loss

    def our_loss(model, batch, rewards):
        advantage = group_advantages(rewards.squeeze(1), 4)
        torch.testing.assert_close(advantage, batch["advantages"])
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        width = batch["completion_ids"].shape[1]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1]
        log_p = logits.log_softmax(-1).gather(-1, batch["completion_ids"].unsqueeze(-1))
        own = batch["completion_mask"].bool()
        return policy_loss(log_p.squeeze(-1), advantage.unsqueeze(1) * own, own, int(own.sum()))

    settings = {"loss_type": "dapo", "activation_checkpointing": False}
    trained(made(Recording, tmp_path, steps=1, settings=settings))
    torch.testing.assert_close(seen["ours"].detach(), seen["loss"], rtol=1e-4, atol=1e-6)
    assert float(seen["gradients"][0].abs().max()) > 0
    for ours, theirs in zip(seen["our gradients"], seen["gradients"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_group_of_equal_rewards_has_no_advantage():
    advantages = group_advantages(torch.tensor([1.0] * 4 + [0.0] * 3 + [1.0]), 4)
    assert advantages[:4].tolist() == [0.0] * 4
    assert float(advantages[7]) == pytest.approx(0.75 / (0.5 + 1e-4))


def test_dropping_groups_of_equal_rewards_changes_nothing():
    rollout = gold_rollout()
    rewards = rollout.rewards.clone()
    rewards[GROUP : 2 * GROUP] = 0
    whole = replace(rollout, rewards=rewards)
    part = whole.uneven_part()
    assert len(part.rewards) < len(whole.rewards)
    first, _ = stepped(ARMS["uniform"], rollouts=[whole])
    second, _ = stepped(ARMS["uniform"], rollouts=[part])
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_a_batch_without_any_difference_is_kept_whole():
    rollout = gold_rollout()
    even = replace(rollout, rewards=torch.zeros_like(rollout.rewards))
    assert even.uneven_part() is even


def test_scaling_all_advantages_hardly_moves_the_policy():
    """Adam divides the scale out; what is left is its epsilon and the gradient limit."""
    start = torch.cat([weight.detach().flatten() for weight in build_policy(0).parameters()])
    plain, _ = stepped(ARMS["uniform"], steps=3)
    scaled, _ = stepped(ARMS["scaled"], steps=3)
    other, _ = stepped(ARMS["random"], steps=3)
    moved = float((plain - start).norm())
    assert float((scaled - plain).norm()) < 0.02 * moved
    assert float((other - plain).norm()) > 0.1 * moved


@pytest.fixture(scope="module")
def plain():
    return stepped(ARMS["uniform"], rollouts=[gold_rollout(5).uneven_part()])[0]


@pytest.mark.parametrize("name", list(ARMS))
def test_every_arm_takes_a_step_of_its_own(name, plain):
    weights, kept = stepped(ARMS[name], rollouts=[gold_rollout(5).uneven_part()])
    assert bool(weights.isfinite().all())
    assert torch.equal(weights, plain) == (name == "uniform")
    if name in ("random", "entropy"):
        assert kept["selected"] == pytest.approx(0.4, abs=0.02)


def test_the_step_uses_the_librarys_token_advantages():
    arm, rollout = ARMS["coupled"], gold_rollout(7)
    policy = build_policy(0).eval()
    calibration = calibration_for(policy, arm, gold_rollout(3))
    rule = arm.rule(rollout, 1)
    advantage = group_advantages(rollout.rewards, GROUP)
    batch = completion_batch(
        rollout.prompts, torch.ones_like(rollout.prompts), rollout.responses, rollout.mask
    )
    expected = token_advantages(policy, batch, advantage, rule, calibration=calibration)
    _, kept = stepped(arm, rollouts=[rollout])
    ratio = (expected / advantage.unsqueeze(1))[rollout.mask & (advantage != 0).unsqueeze(1)]
    assert kept["weight"] == pytest.approx(float(ratio.mean()), abs=0.05)
    assert calibration.layers == (2, 3, 4)
    assert int(calibration.global_heads.sum()) == 4


def test_the_oracle_blames_and_praises_by_the_exact_value():
    rollout = gold_rollout(9)
    weights = ARMS["oracle"].rule(rollout, 1).weights
    labels = rollout.labels
    solved = labels.solved.unsqueeze(1)
    good = labels.hopeful & ~labels.fatal
    assert set(weights.unique().tolist()) == {0.0, 1.0, 1.5}
    assert bool((weights[good & solved] == 1.5).all())
    assert bool((weights[good & ~solved] == 0).all())
    assert bool((weights[labels.fatal & ~solved] == 1.5).all())
    assert bool((weights[labels.fatal & solved] == 0).all())
    assert bool((weights[labels.decision & ~labels.hopeful] == 0).all())
    assert bool((weights[~labels.decision] == 1).all())


def test_settings_are_scaled_by_the_rule_of_the_plan():
    rhythm = SCALED.rhythm
    assert (rhythm.window, rhythm.near, rhythm.far) == (9, 9, 76)
    assert rhythm.layers(6) == (2, 3, 4)


def test_arms_are_found_by_name_and_by_group():
    assert [arm.name for arm in find_arms("uniform,core")][:2] == ["uniform", "oracle"]
    with pytest.raises(ValueError, match=r"no arm 'best'; there are \['core'"):
        find_arms("best")


def test_sampled_groups_stand_together():
    chosen = list(problems("train")[:2])
    rollout = roll_out(build_policy(0), chosen, torch.Generator().manual_seed(0))
    assert rollout.prompts[:, 1:4].tolist() == [list(p.numbers) for p in chosen for _ in range(8)]
    assert rollout.rewards.sum() == 0
    assert rollout.mask.shape == rollout.responses.shape
