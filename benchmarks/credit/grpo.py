"""GRPO in a page: one batch of sampled groups, one update, token advantages from a credit rule.

The formulas are those of TRL's GRPOTrainer with `loss_type="dapo"`, `beta=0` and one update per
batch; a test compares loss and gradient with it. TRL itself would spend most of a step outside of
this model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnscope.credit import (
    HeadCalibration,
    Rule,
    completion_batch,
    plan_for,
    riding,
)
from benchmarks.credit.replay import Labels, label_batch
from benchmarks.credit.sampling import respond
from benchmarks.credit.task import LONGEST, PAD, Problem, prompt_ids

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = [
    "GROUP",
    "PROMPTS",
    "RATE",
    "Rollout",
    "RuleOf",
    "group_advantages",
    "policy_loss",
    "roll_out",
    "update",
]

PROMPTS, GROUP = 32, 8
RATE, GRADIENT_LIMIT = 1e-3, 1.0
_EPSILON = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """Groups of responses, each with its reward.

    Attributes:
        prompts: Tokens of the prompts, one row per response; a group's rows stand together.
        responses: Tokens of the responses, filled up with `<pad>`, as wide as the longest.
        mask: Where the responses' own tokens are.
        labels: The replay of each response.
        rewards: 1 for a solution, else 0.
        tokens: Number of tokens that were sampled, those of dropped groups too.
    """

    prompts: Int[Tensor, "batch prompt"]
    responses: Int[Tensor, "batch response"]
    mask: Bool[Tensor, "batch response"]
    labels: Labels
    rewards: Float[Tensor, " batch"]
    tokens: int

    @property
    def even(self) -> Bool[Tensor, " group"]:
        """Return which groups have equal rewards, and so nothing to learn from."""
        grouped = self.rewards.reshape(-1, GROUP)
        return (grouped == grouped[:, :1]).all(-1)

    def uneven_part(self) -> "Rollout":
        """Return the groups whose rewards differ; all of them where none does.

        The advantages of the others are 0, so that neither loss nor gradient misses them.
        """
        chosen = ~self.even.repeat_interleave(GROUP)
        if not bool(chosen.any()):
            return self
        width = int(self.mask[chosen].sum(-1).max())
        return replace(
            self,
            prompts=self.prompts[chosen],
            responses=self.responses[chosen, :width],
            mask=self.mask[chosen, :width],
            labels=self.labels.part(chosen, width),
            rewards=self.rewards[chosen],
        )


RuleOf = Callable[[Rollout], Rule]
"""Makes a credit rule for a batch; only an oracle looks at the batch."""


def roll_out(
    policy: "LlamaForCausalLM", problems: list[Problem], generator: torch.Generator
) -> Rollout:
    """Return a group of sampled responses to each problem."""
    repeated = [problem for problem in problems for _ in range(GROUP)]
    prompts = torch.tensor([prompt_ids(problem) for problem in repeated])
    responses = respond(policy, prompts, torch.rand(len(repeated), LONGEST, generator=generator))
    mask = responses != PAD
    width = int(mask.sum(-1).max())
    labels = label_batch(repeated, responses[:, :width])
    return Rollout(
        prompts=prompts,
        responses=responses[:, :width],
        mask=mask[:, :width],
        labels=labels,
        rewards=labels.solved.float(),
        tokens=int(mask.sum()),
    )


def group_advantages(rewards: Float[Tensor, " batch"], group: int) -> Float[Tensor, " batch"]:
    """Return each reward's distance from its group's mean, in standard deviations (over n - 1).

    Example:
        >>> advantages = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), 4)
        >>> [round(float(advantage), 3) for advantage in advantages]  # 0.75 / (0.5 + 0.0001)
        [1.5, -0.5, -0.5, -0.5]
    """
    grouped = rewards.reshape(-1, group)
    centered = grouped - grouped.mean(-1, keepdim=True)
    return (centered / (grouped.std(-1, keepdim=True) + _EPSILON)).flatten()


def policy_loss(
    log_probabilities: Float[Tensor, "batch response"],
    advantages: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    tokens: int,
) -> Float[Tensor, ""]:
    """Return the loss: minus the sum of ratio times advantage, over the number of tokens sampled.

    With one update per batch the ratio is 1, and only its gradient matters; nothing is clipped.
    """
    ratio = (log_probabilities - log_probabilities.detach()).exp()
    return -torch.where(mask, ratio * advantages, 0).sum() / max(1, tokens)


def update(
    policy: "LlamaForCausalLM",
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    rule: Rule,
    *,
    calibration: HeadCalibration | None,
    draw: int,
) -> dict[str, float]:
    """Take one step of the optimizer, and return what is kept of it.

    The rule's readings come from the very pass that the loss is made of (`riding`).

    Args:
        policy: The model, changed in place.
        optimizer: Its optimizer.
        rollout: Responses that the policy has just written, those that can be learned from.
        rule: The credit rule.
        calibration: The heads of each group, fixed before training.
        draw: Number of the batch, for rules that draw at random.
    """
    advantage = group_advantages(rollout.rewards, GROUP)
    batch = completion_batch(
        rollout.prompts, torch.ones_like(rollout.prompts), rollout.responses, rollout.mask
    )
    with riding(policy, batch, plan_for(rule, calibration)) as ride:
        logits = policy(input_ids=batch.ids, use_cache=False).logits
    log_p = logits[:, rollout.prompts.shape[1] - 1 : -1].log_softmax(-1)
    credit = rule.assign(ride.readings(advantage=advantage, draw=draw))
    chosen = log_p.gather(-1, rollout.responses.unsqueeze(-1)).squeeze(-1)
    loss = policy_loss(chosen, credit.apply(advantage), rollout.mask, rollout.tokens)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), GRADIENT_LIMIT)
    optimizer.step()
    entropy = -(log_p.detach().exp() * log_p.detach()).sum(-1)[rollout.mask].mean()
    statistics = credit.statistics()
    return {
        "entropy": float(entropy),
        "gradient": float(norm),
        "weight": statistics["weight"],
        "selected": statistics["selected"],
    }
