"""`rejection_step`: draw candidates for a token until one reaches a threshold."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["CandidateDrawing", "RejectionStep", "rejection_step"]


@dataclass(frozen=True, slots=True, eq=False)
class RejectionStep:
    """How one token was chosen, for each row of the batch.

    Attributes:
        token: The token.
        score: Its score; NaN where nothing was said before it, or the answer had ended.
        threshold: The score to reach; 0 lets everything pass.
        tried: How many candidates were drawn; 0 after the answer's end.
        accepted: Whether it reached the threshold; else it is the best of those drawn.
    """

    token: Int[Tensor, " row"]
    score: Float[Tensor, " row"]
    threshold: Float[Tensor, " row"]
    tried: Int[Tensor, " row"]
    accepted: Bool[Tensor, " row"]


class CandidateDrawing:
    """Draws from the likeliest tokens of each row without putting any back.

    Args:
        logits: Logits of the next token.
        candidates: How many of the likeliest may be drawn.
        sample: Draw at random; else the likeliest that is left.
    """

    def __init__(
        self, logits: Float[Tensor, "row vocabulary"], candidates: int, sample: bool
    ) -> None:
        likeliest, self._tokens = logits.topk(min(candidates, logits.shape[-1]))
        self._shares, self._sample = likeliest.softmax(-1), sample

    @property
    def left(self) -> Bool[Tensor, " row"]:
        """Return which rows have a token left."""
        return self._shares.sum(-1) > 0

    def draw(self) -> Int[Tensor, " row"]:
        """Return one token of each row; any token for a row that has none left."""
        shares = self._shares + ~self.left[:, None]
        place = shares.multinomial(1) if self._sample else shares.argmax(-1, keepdim=True)
        self._shares = self._shares.scatter(-1, place, 0)
        return self._tokens.gather(-1, place)[:, 0]


def rejection_step(
    score: Callable[[Int[Tensor, " row"]], Float[Tensor, " row"]],
    drawing: CandidateDrawing,
    threshold: Float[Tensor, " row"],
    alive: Bool[Tensor, " row"],
    tries: int,
) -> RejectionStep:
    """Return the first candidate that reaches the threshold, or the best of those drawn.

    Where the threshold is 0 the first draw passes, a score that is undefined too; elsewhere an
    undefined score does not pass.

    Args:
        score: Scores one candidate for each row.
        drawing: Gives the candidates.
        threshold: The score that each row has to reach.
        alive: Which rows still speak.
        tries: How many candidates are drawn at most.

    Reference: Zhang et al. 2026, arXiv:2601.20279, algorithm 1.

    Example:
        >>> drawing = CandidateDrawing(torch.tensor([[0.0, 3.0, 2.0]]), 3, sample=False)
        >>> scores = torch.tensor([0.9, 0.29, 0.3])
        >>> step = rejection_step(
        ...     lambda token: scores[token], drawing, torch.tensor([0.3]), torch.tensor([True]), 3
        ... )
        >>> int(step.token), int(step.tried), bool(step.accepted)
        (2, 2, True)
    """
    token = torch.zeros(len(alive), dtype=torch.long, device=alive.device)
    best = torch.full_like(threshold, torch.nan)
    tried, pending = torch.zeros_like(token), alive
    for _ in range(tries):
        pending = pending & drawing.left
        if not bool(pending.any()):
            break
        drawn = drawing.draw()
        found = score(drawn).to(threshold)
        # a comparison with NaN is false: the first draw stands until a defined score comes
        better = pending & ~(found <= best) & (found.isfinite() | (tried == 0))
        token, best = drawn.where(better, token), found.where(better, best)
        tried = tried + pending
        pending = pending & ~_passes(found, threshold)
    return RejectionStep(token, best, threshold, tried, alive & _passes(best, threshold))


def _passes(score: Tensor, threshold: Tensor) -> Tensor:
    return (threshold == 0) | (score >= threshold)
