"""Entropies and log-probabilities from what a policy's forward pass returns."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.credit.errors import CreditError
from attnscope.credit.layout import Stretch

__all__ = ["TokenFacts", "token_facts"]

_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenFacts:
    """What the policy said of one response.

    Attributes:
        entropy: Entropy at each row, the one before the response first; NaN where unknown.
        log_probability: Log-probability of each response token; NaN where unknown.
    """

    entropy: Float[Tensor, " row"]
    log_probability: Float[Tensor, " response"]


def token_facts(
    output: Any,
    ids: Int[Tensor, "batch column"] | None,
    columns: int,
    row: int,
    stretch: Stretch,
) -> TokenFacts:
    """Return the facts of one response, without gradients.

    Args:
        output: What the policy returned: logits of all or of the last columns, or per-token
            `entropy` and `log_probs` as trainers with a fused head give them.
        ids: The tokens of the pass, from which logits give log-probabilities.
        columns: Columns of the rows of the pass.
        row: The sequence's row in the pass.
        stretch: The sequence.

    Raises:
        CreditError: The policy returned neither.
    """
    entropies = getattr(output, "entropy", None)
    if entropies is not None:
        return _from_fused(entropies[row], output.log_probs[row], stretch)
    logits = getattr(output, "logits", None)
    if logits is None:
        raise CreditError(
            f"the policy returned a {type(output).__name__} without logits or entropies; credit by "
            "entropy or probability needs one of them"
        )
    return _from_logits(logits[row], None if ids is None else ids[row], columns, stretch)


def _from_fused(entropies: Tensor, log_probs: Tensor, stretch: Stretch) -> TokenFacts:
    """Return facts of a fused head: entry t is of the row t, which predicts token t + 1."""
    count = stretch.end - stretch.first
    entropy = entropies.new_full((count + 1,), torch.nan, dtype=torch.float32)
    log_probability = entropy[1:].clone()
    known = max(0, 1 - stretch.first)  # without a prompt nothing predicts the first token
    rows = slice(stretch.first - 1 + known, stretch.end - 1)
    entropy[known:count] = entropies[rows].detach().float()
    log_probability[known:] = log_probs[rows].detach().float()
    return TokenFacts(entropy=entropy, log_probability=log_probability)


def _from_logits(logits: Tensor, ids: Tensor | None, columns: int, stretch: Stretch) -> TokenFacts:
    """Return facts of logits, which may be of the last columns alone."""
    count, missing = stretch.end - stretch.first, columns - len(logits)
    entropy = logits.new_full((count + 1,), torch.nan, dtype=torch.float32)
    log_probability = entropy[1:].clone()
    first = max(stretch.first - 1, missing)
    for start in range(first, stretch.end, _ROWS):
        rows = torch.arange(start, min(start + _ROWS, stretch.end), device=logits.device)
        log_p = logits[rows - missing].detach().float().log_softmax(-1)
        place = rows - (stretch.first - 1)
        entropy[place] = -(log_p.exp() * log_p).nansum(-1)
        if ids is not None:
            drawn = rows < stretch.end - 1
            chosen = log_p[drawn].gather(-1, ids[rows[drawn] + 1, None]).squeeze(-1)
            log_probability[place[drawn]] = chosen
    return TokenFacts(entropy=entropy, log_probability=log_probability)
