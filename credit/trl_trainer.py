"""TRL's GRPO trainer with token credit, by one more forward pass over the completions.

A subclass of any trainer that keeps GRPO's loss: advantages of shape `(batch,)` become
`(batch, token)` where completions are scored, which the loss takes as they are. trl is imported
when a trainer is made, not before. Written against trl 1.16.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attnscope.credit.assignment import Credit
from attnscope.credit.errors import CreditError
from attnscope.credit.extra_forward import evaluating
from attnscope.credit.head_calibration import HeadCalibration
from attnscope.credit.reading_plan import plan_for
from attnscope.credit.ride import Ride, riding
from attnscope.credit.rule import Rule
from attnscope.credit.token_batch import completion_batch

__all__ = ["CreditTrainer", "credit_aware", "require_grpo"]

_DETACHED_RATIO = ("cispo", "vespo")
_MULTIMODAL = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)

Scored = Mapping[str, Any]
"""A scored batch as the trainer keeps it: ids and masks of prompts and completions, advantages."""


class CreditTrainer:
    """What a credit-aware trainer adds; `credit_aware` puts it in front of a trainer.

    Readings come from one more forward pass over the finished completions, without gradients,
    dropout or random numbers, by the policy before its update. A rule that reads nothing costs
    nothing.

    Args:
        arguments: The trainer's own arguments.
        credit: The rule.
        calibration: The heads of each group; by default they are ranked anew in each batch, over
            all processes.
        options: The trainer's own options.
    """

    def __init__(
        self,
        *arguments: Any,
        credit: Rule,
        calibration: HeadCalibration | None = None,
        **options: Any,
    ) -> None:
        self.credit = credit
        self.credit_plan = plan_for(credit, calibration)
        self._credit_draw = -1
        super().__init__(*arguments, **options)
        _check(self)

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the scored completions; in training with one advantage per token."""
        scored = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        if self.model.training:
            scored["advantages"] = self._credited(self._credit_pass(scored), scored)
        return scored

    def _credit_pass(self: Any, scored: Scored) -> Ride:
        """Run the policy once more over the completions, and listen."""
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        batch = completion_batch(*(scored[name] for name in names))
        mask = torch.cat([scored["prompt_mask"], scored["completion_mask"]], dim=1)
        plan = self.credit_plan
        with evaluating(self.model), torch.no_grad(), riding(self.model, batch, plan) as ride:
            if not plan.wants_nothing:
                self._get_per_token_logps_and_entropies(
                    self.model,
                    batch.ids,
                    mask,
                    scored["completion_ids"].shape[1],
                    batch_size=self.args.per_device_train_batch_size,
                    compute_entropy=True,
                    **{name: scored[name] for name in _MULTIMODAL if name in scored},
                )
        return ride

    def _credited(self: Any, ride: Ride, scored: Scored) -> Tensor:
        """Return the advantages of the tokens, and log what was selected.

        Tokens that a tool wrote are read, and given no credit.
        """
        self._credit_draw = max(self._credit_draw + 1, self.state.global_step)
        processes = self.accelerator.num_processes
        readings = ride.readings(
            mean=self._mean_spans,
            advantage=scored["advantages"],
            draw=self._credit_draw * processes + self.accelerator.process_index,
        )
        if "tool_mask" in scored:
            readings = replace(readings, mask=readings.mask & scored["tool_mask"].bool())
        credit = self.credit.assign(readings)
        self._log_credit(credit)
        return credit.apply(scored["advantages"])

    def _mean_spans(self: Any, spans: Tensor) -> Tensor:
        """Return the mean span of each head over the responses of all processes."""
        totals = torch.stack([spans.nansum(0), (~spans.isnan()).sum(0).to(spans.dtype)])
        total, count = self.accelerator.reduce(totals, reduction="sum")
        return total / count

    def _log_credit(self: Any, credit: Credit) -> None:
        """Add what was selected to the trainer's metrics, over all processes."""
        totals = credit.totals()
        local = torch.tensor(list(totals.values()), device=self.accelerator.device)
        summed = self.accelerator.reduce(local, reduction="sum").tolist()
        for name, (total, count) in zip(totals, summed, strict=True):
            found = total / count if count else float("nan")
            self._metrics["train"][f"credit/{name}"].append(found)


@cache
def credit_aware(trainer: type) -> type:
    """Return a trainer class that gives token credit: it takes `credit=` beside its own arguments.

    Only what the method that scores completions returns is changed, and only in training.

    Args:
        trainer: TRL's `GRPOTrainer`, or a subclass that keeps its loss.

    Raises:
        CreditError: The trainer would cancel token credit.

    Example:
        `credit_aware(GRPOTrainer)(model, rewards, args=config, train_dataset=data, credit=rule)`
    """
    require_grpo(trainer)
    return type(f"Credit{trainer.__name__}", (CreditTrainer, trainer), {})


def require_grpo(trainer: type) -> None:
    """Refuse trainers whose loss takes one advantage per completion.

    Raises:
        CreditError: The trainer is one of them.
    """
    from trl.trainer.grpo_trainer import GRPOTrainer

    if not (isinstance(trainer, type) and issubclass(trainer, GRPOTrainer)):
        raise CreditError(
            f"{trainer.__name__} is no GRPOTrainer. Token credit needs a loss that multiplies each "
            "token's log-probability by its own advantage; RLOO's takes the log-probability of the "
            "whole completion, so that weights would act by their mean alone"
        )
    if trainer._compute_loss is not GRPOTrainer._compute_loss:
        raise CreditError(
            f"{trainer.__name__} computes a loss of its own, which takes one advantage per "
            "completion (as GMPO's does); token credit needs GRPOTrainer's"
        )


def _check(trainer: Any) -> None:
    """Refuse configurations under which token credit silently has no effect."""
    level, loss = trainer.importance_sampling_level, trainer.loss_type
    if level == "sequence" and loss not in _DETACHED_RATIO:
        raise CreditError(
            f'importance_sampling_level="sequence" with loss_type="{loss}" gives all tokens of a '
            "completion one ratio and one gradient, so that token weights act by their mean alone; "
            f'use "token", or a loss_type of {list(_DETACHED_RATIO)}'
        )
