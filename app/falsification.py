"""`falsify`: take one head away, and other heads of its layer, and see what the answer owes it."""

from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.app.changed_answers import answer_log_probabilities, differing, response_of
from attnscope.app.failures import CommandError
from attnscope.app.live_models import Step
from attnscope.app.pictured_answers import Decoding, PicturedPrompt, answer, said
from attnscope.figures import HeadName
from attnscope.interventions import HeadAblation
from attnscope.probes import Encoded

__all__ = ["RIVALS", "Falsification", "HeadEffect", "falsify", "rivals_of"]

RIVALS = 4
"""Heads of the same layer that a head is held against, where the layer has as many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadEffect:
    """What happens without a head.

    Attributes:
        head: Its number.
        words: What the model says then.
        gone: Tokens of the plain answer that are no longer said where they were.
        change: By how much the log-probability of each token of the plain answer moves, in nats.
    """

    head: int
    words: str
    gone: int
    change: Float[Tensor, " token"]

    @property
    def total(self) -> float:
        """Return the change of the whole answer's log-probability, in nats."""
        return float(self.change.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Falsification:
    """One head's effect, beside that of random heads of its layer.

    Attributes:
        head: The head that is asked about.
        words: The plain answer.
        tokens: Its tokens.
        own: The head's effect.
        rivals: The effects of the others.
    """

    head: HeadName
    words: str
    tokens: tuple[str, ...]
    own: HeadEffect
    rivals: tuple[HeadEffect, ...]

    @property
    def stronger(self) -> int:
        """Return how many of the others lower the answer's log-probability at least as much."""
        return sum(rival.total <= self.own.total for rival in self.rivals)

    @property
    def verdict(self) -> str:
        """Return in words what the comparison says."""
        moved = f"Without it the answer's log-probability moves by {self.own.total:+.2f} nats"
        rivals, stronger = len(self.rivals), self.stronger
        if self.own.total >= 0:
            return f"{moved}: the answer does not rest on this head."
        if not rivals:
            return f"{moved}; its layer has no other head to compare."
        if stronger:
            return (
                f"{moved}, but {stronger} of {rivals} random heads of its layer matter as much or "
                "more: that this head matters in particular is not borne out."
            )
        return (
            f"{moved}, more than without any of {rivals} random heads of its layer (by chance "
            f"alone: 1 in {rivals + 1})."
        )

    def table(self) -> pandas.DataFrame:
        """Return a row per head: the one asked about, then the others."""
        rows = [
            (
                str(HeadName(self.head.layer, effect.head)),
                "asked about" if effect is self.own else "random",
                effect.total,
                effect.total / max(1, len(self.tokens)),
                effect.gone,
                effect.words,
            )
            for effect in (self.own, *self.rivals)
        ]
        columns = [
            "without",
            "chosen",
            "log-probability (nats)",
            "per token (nats)",
            "tokens gone",
            "says",
        ]
        return pandas.DataFrame(rows, columns=columns)


def rivals_of(head: int, heads: int, seed: int, count: int = RIVALS) -> list[int]:
    """Return other heads of a layer, drawn at random without repetition; all if they are few.

    Example:
        >>> rivals_of(0, 3, seed=0), len(rivals_of(2, 8, seed=0)), 2 in rivals_of(2, 8, seed=0)
        ([1, 2], 4, False)
    """
    others = [number for number in range(heads) if number != head]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(others[place] for place in order[:count])


def falsify(
    prompt: PicturedPrompt, head: HeadName, rivals: list[int], most: int, step: Step
) -> Falsification:
    """Return what the answer owes a head, and what it owes others of the same layer.

    Each head's output z is set to 0, by itself. The plain answer is then read again, teacher-forced
    (the change of its log-probability), and the model answers anew (the tokens that are gone).

    Args:
        prompt: What is asked.
        head: The head.
        rivals: Other heads of its layer.
        most: Most tokens of an answer.
        step: Told how far it is.

    Raises:
        CommandError: The head is among its rivals.
        InterventionError: There is no such layer or head.
    """
    if head.head in rivals:
        raise CommandError(f"head {head.head} is among the heads {rivals} that it is held against")
    step("answering as it is", 0.05)
    plain = answer(prompt, (), Decoding(max_tokens=most))
    before = answer_log_probabilities(prompt, plain, ())
    effects = []
    numbers = [head.head, *rivals]
    for done, number in enumerate(numbers):
        step(f"answering without head {number}", 0.1 + 0.9 * done / len(numbers))
        effects.append(_effect(prompt, plain, before, (HeadName(head.layer, number), most)))
    step("done", 1.0)
    return Falsification(
        head=head,
        words=said(prompt, plain),
        tokens=_tokens(plain),
        own=effects[0],
        rivals=tuple(effects[1:]),
    )


def _effect(
    prompt: PicturedPrompt, plain: Encoded, before: Tensor, without: tuple[HeadName, int]
) -> HeadEffect:
    head, most = without
    ablation = (HeadAblation(layers=[head.layer], heads=[head.head]),)
    again = answer(prompt, ablation, Decoding(max_tokens=most))
    return HeadEffect(
        head=head.head,
        words=said(prompt, again),
        gone=len(differing(_tokens(plain), _tokens(again))),
        change=answer_log_probabilities(prompt, plain, ablation) - before,
    )


def _tokens(answered: Encoded) -> tuple[str, ...]:
    tokens = answered.sequences[answered.main_sequence].tokens
    return tuple(tokens[place] for place in response_of(answered))
