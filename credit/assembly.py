"""`assembled`: the readings of a batch put together from what was measured of it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from attnscope.credit.reading_plan import ReadingPlan
from attnscope.credit.readings import Readings
from attnscope.credit.token_batch import TokenBatch
from attnscope.credit.token_facts import TokenFacts

__all__ = ["assembled"]


def assembled(
    batch: TokenBatch,
    plan: ReadingPlan,
    found: Mapping[str, Tensor],
    facts: Mapping[int, TokenFacts],
    advantage: Tensor | None,
    draw: int,
) -> Readings:
    """Return the readings of a batch, NaN where nothing was measured.

    Args:
        batch: The responses.
        plan: What was to be read.
        found: The attention readings by name.
        facts: Entropies and log-probabilities by the number of the response.
        advantage: Advantages of the responses, or of their tokens.
        draw: Number of the batch.
    """
    mask = batch.layout.mask
    unread = {name: _nothing(name, mask) for name in plan.attention if name not in found}
    return Readings(
        mask=mask,
        advantage=None if advantage is None else advantage.detach(),
        ids=batch.response_ids,
        draw=draw,
        **unread,
        **{name: values.to(mask.device) for name, values in found.items()},
        **(_token_readings(mask, facts) if plan.wants_tokens else {}),
    )


def _token_readings(mask: Tensor, facts: Mapping[int, TokenFacts]) -> dict[str, Tensor]:
    entropy, log_probability = _nothing("entropy", mask), _nothing("log_probability", mask)
    for number, own in facts.items():
        entropy[number, : len(own.entropy)] = own.entropy
        log_probability[number, : len(own.log_probability)] = own.log_probability
    return {"entropy": entropy, "log_probability": log_probability}


def _nothing(name: str, mask: Tensor) -> Tensor:
    """Return a reading that is NaN everywhere; row metrics have one column more."""
    rows, columns = mask.shape
    width = columns + (name in ("local_waad", "entropy"))
    return torch.full((rows, width), torch.nan, device=mask.device)
