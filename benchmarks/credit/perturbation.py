"""The perturbation test: force another token at a position, and see how much of the rest changes.

The paper finds that forcing a token where FAI is high changes more of what follows than where it is
low. How many positions and candidates it takes, and which words count, it does not say: the numbers
below are our reading.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import attnscope
from attnscope.probes import Encoded, Measuring

__all__ = ["Perturbation", "content_words", "jaccard", "perturb"]

POSITIONS, CANDIDATES = 3, 3
_CONTENT = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """Overlap of what follows a forced token with what followed the original one.

    Attributes:
        high: Mean overlap at the positions of the highest FAI.
        low: The same at those of the lowest.
        high_place: Mean place of those positions in the response, from 0 to 1.
        low_place: The same of the others.
    """

    high: float
    low: float
    high_place: float
    low_place: float


def content_words(text: str) -> frozenset[str]:
    """Return the words and numbers of a text, in lower case.

    Example:
        >>> sorted(content_words("Yes , 3 * 4 = 12 . yes"))
        ['12', '3', '4', 'yes']
    """
    return frozenset(_CONTENT.findall(text.lower()))


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    """Return the share of the members of either set that both have; 1 for two empty sets.

    Example:
        >>> jaccard(frozenset("abc"), frozenset("bcd"))
        0.5
    """
    return len(one & other) / len(one | other) if one | other else 1.0


def perturb(subject: attnscope.Subject, answered: Encoded, longest: int) -> Perturbation | None:
    """Return how much forced tokens change a greedy response; None if it is too short to say.

    At each position the likeliest tokens but the original one are forced in turn, and the model
    goes on greedily.

    Args:
        subject: The model and its tokenizer.
        answered: Prompt and greedy response.
        longest: Most tokens of a response.

    Reference: Li et al. 2025, arXiv:2510.13554, section 4.1, table 1 and equation 11.
    """
    ids = answered.model_inputs["input_ids"]
    response = list(answered.sequences[answered.main_sequence].segments["response"])
    fai = attnscope.capture(subject, answered, into=Measuring("global_fai"))["global_fai"].values
    ranked = [place for place in _ranked(fai, response) if place < response[-1]]
    if len(ranked) < 2 * POSITIONS:
        return None
    high, low = ranked[-POSITIONS:], ranked[:POSITIONS]
    span = response[-1] - response[0]
    return Perturbation(
        high=fmean(_overlap(subject, ids, place, response[0] + longest) for place in high),
        low=fmean(_overlap(subject, ids, place, response[0] + longest) for place in low),
        high_place=fmean((place - response[0]) / span for place in high),
        low_place=fmean((place - response[0]) / span for place in low),
    )


def _ranked(fai: Float[Tensor, " key"], response: Sequence[int]) -> list[int]:
    """Return the response positions whose FAI is defined, the lowest first."""
    defined = [place for place in response if not bool(fai[place].isnan())]
    return sorted(defined, key=lambda place: float(fai[place]))


@torch.no_grad()
def _overlap(
    subject: attnscope.Subject, ids: Int[Tensor, "1 token"], place: int, longest: int
) -> float:
    """Return the mean overlap over the candidates that are forced at a place."""
    model: Any = subject.model
    ids = ids.to(subject.device)
    logits = model(input_ids=ids[:, :place]).logits[0, -1].clone()
    logits[ids[0, place]] = -torch.inf
    forced = logits.topk(CANDIDATES).indices.unsqueeze(1)
    start = torch.cat([ids[:, :place].expand(CANDIDATES, -1), forced], dim=1)
    produced = model.generate(
        input_ids=start,
        attention_mask=torch.ones_like(start),
        do_sample=False,
        max_new_tokens=max(1, longest - start.shape[1]),
    )
    original = _words(subject, ids[0, place + 1 :])
    return fmean(jaccard(original, _words(subject, row[place + 1 :])) for row in produced)


def _words(subject: attnscope.Subject, ids: Int[Tensor, " token"]) -> frozenset[str]:
    return content_words(subject.tokenizer.decode(ids, skip_special_tokens=True))
