"""TRL's GRPO trainer with token credit, read from forward passes that it makes anyway."""

from functools import cache
from typing import Any

from torch import Tensor

from attnscope.credit.ride import Ride, riding
from attnscope.credit.token_batch import completion_batch
from attnscope.credit.trl_trainer import CreditTrainer, require_grpo

__all__ = ["RidingCreditTrainer", "credit_riding"]


class RidingCreditTrainer(CreditTrainer):
    """What a trainer adds that rides; `credit_riding` puts it in front of a trainer.

    Where the trainer computes the sampling policy's log-probabilities, before any update, that pass
    is listened to. Where it does not (its default, when each batch is used for one update), the
    loss's own pass is, batch by batch as the loss sees them: heads are then ranked, and shares of a
    whole batch taken, per micro-batch, unless a calibration names the heads.
    """

    _credit_awaited = False
    _credit_ride: Ride | None = None
    _credit_scored: dict[str, Any] | None = None

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the scored completions, with one advantage per token if they could be read."""
        if not self.model.training or self.credit_plan.wants_nothing:
            return super()._generate_and_score_completions(inputs)
        self._credit_awaited = _scores_samples(self)
        try:
            scored = super(CreditTrainer, self)._generate_and_score_completions(inputs)  # type: ignore[misc]
        finally:
            ride, self._credit_ride, self._credit_awaited = self._credit_ride, None, False
        if ride is not None:
            scored["advantages"] = self._credited(ride, scored)
        return scored

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the loss; advantages that have no token axis yet get one during its pass."""
        uncredited = self.model.training and inputs["advantages"].ndim == 1
        self._credit_scored = dict(inputs) if uncredited else None
        try:
            return super()._compute_loss(model, self._credit_scored or inputs)  # type: ignore[misc]
        finally:
            self._credit_scored = None

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """Return what the trainer computes, and listen where credit waits for it."""
        run = super()._get_per_token_logps_and_entropies  # type: ignore[misc]
        scored, awaited = self._credit_scored, self._credit_awaited
        if scored is None and not awaited:
            return run(model, input_ids, attention_mask, logits_to_keep, *arguments, **options)
        self._credit_awaited = False
        columns = [input_ids.shape[1] - logits_to_keep, logits_to_keep]
        prompt_ids, completion_ids = input_ids.split(columns, dim=1)
        prompt_mask, completion_mask = attention_mask.split(columns, dim=1)
        batch = completion_batch(prompt_ids, prompt_mask, completion_ids, completion_mask)
        with riding(model, batch, self.credit_plan) as ride:
            result = run(model, input_ids, attention_mask, logits_to_keep, *arguments, **options)
        if scored is None:
            self._credit_ride = ride
        else:
            scored["advantages"] = self._credited(ride, scored)
        return result


@cache
def credit_riding(trainer: type) -> type:
    """Return a trainer class that gives token credit without a forward pass of its own.

    Args:
        trainer: TRL's `GRPOTrainer`, or a subclass that keeps its loss.

    Raises:
        CreditError: The trainer would cancel token credit.
    """
    require_grpo(trainer)
    return type(f"RidingCredit{trainer.__name__}", (RidingCreditTrainer, trainer), {})


def _scores_samples(trainer: Any) -> bool:
    """Return whether the trainer's next pass is of the sampling policy, by the trainer's own rule.

    It comes first, before a reference model's, when batches outlive an update or vLLM sampled them.
    """
    arguments = trainer.args
    every = arguments.steps_per_generation * trainer.num_iterations
    corrected = trainer.use_vllm and trainer.vllm_importance_sampling_correction
    return arguments.gradient_accumulation_steps % every != 0 or corrected
