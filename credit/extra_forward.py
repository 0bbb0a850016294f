"""`read_responses`: readings of a batch from one forward pass of its own, without gradients."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.credit.errors import CreditError
from attnscope.credit.head_calibration import HeadCalibration
from attnscope.credit.head_recorder import SpanMean, mean_spans
from attnscope.credit.policy_layers import unwrapped
from attnscope.credit.preset import Preset
from attnscope.credit.reading_plan import ReadingPlan
from attnscope.credit.readings import Readings
from attnscope.credit.ride import Ride, riding
from attnscope.credit.token_batch import TokenBatch

__all__ = ["calibrate", "evaluating", "read_responses"]


def read_responses(
    policy: nn.Module,
    batch: TokenBatch,
    plan: ReadingPlan,
    *,
    micro_batch: int = 8,
    mean: SpanMean = mean_spans,
    advantage: Float[Tensor, " batch"] | Float[Tensor, "batch response"] | None = None,
) -> Readings:
    """Return the readings of a batch of finished responses.

    The sequences are run from their first token on, without padding on the left and without a mask,
    so that the policy's fastest kernels serve. Modes are restored; random numbers are not drawn.

    Args:
        policy: The model that wrote the responses.
        batch: Their tokens.
        plan: What to read.
        micro_batch: Sequences per forward pass.
        mean: How head spans are averaged where heads are ranked by this batch.
        advantage: Advantages of the responses, for rules that look at their sign.

    Raises:
        CreditError: As for `riding`.
    """
    ride = _ride_over(policy, batch, plan, micro_batch)
    return ride.readings(mean=mean, advantage=advantage)


def calibrate(
    policy: nn.Module, batch: TokenBatch, preset: Preset, *, micro_batch: int = 8
) -> HeadCalibration:
    """Return which heads look back least and furthest on a batch of responses, to be kept.

    Args:
        policy: The model, best before training.
        batch: Responses that it wrote.
        preset: Layers, quantile and grouping.
        micro_batch: Sequences per forward pass.

    Raises:
        CreditError: No response has a token; else as for `riding`.
    """
    plan = ReadingPlan(needs=frozenset({"spans"}), preset=preset)
    ride = _ride_over(policy, batch, plan, micro_batch)
    ride.readings()
    if ride.calibration is None:
        raise CreditError("no response has a token: there is nothing to rank heads by")
    return ride.calibration


def _ride_over(policy: nn.Module, batch: TokenBatch, plan: ReadingPlan, micro_batch: int) -> Ride:
    aligned = batch.left_aligned()
    options = _options(policy, plan, aligned)
    with evaluating(policy), torch.no_grad(), riding(policy, aligned, plan) as ride:
        for ids in aligned.ids.split(micro_batch) if not plan.wants_nothing else ():
            policy(input_ids=ids, **options)
    return ride


def _options(policy: nn.Module, plan: ReadingPlan, batch: TokenBatch) -> dict[str, Any]:
    """Return how to call the policy for no more than what is read: no cache, and few logits."""
    accepted = inspect.signature(unwrapped(policy).forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    if "logits_to_keep" in accepted:
        first = min((own.first for own in batch.layout.stretches if own.end > own.first), default=0)
        kept = batch.ids.shape[1] - max(0, first - 1)
        options["logits_to_keep"] = kept if plan.wants_tokens else 1
    return options


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off while the context is open; each module's own mode is restored."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
