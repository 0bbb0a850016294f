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
from torch.nn.functional import pad

import attnscope
from attnscope.probes import Encoded, Measuring
from attnscope.traces import Segments

__all__ = ["Perturbation", "content_words", "jaccard", "perturb", "response_of"]

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
    response = response_of(answered.sequences[answered.main_sequence].segments)
    fai = attnscope.capture(subject, answered, into=Measuring("global_fai"))["global_fai"].values
    ranked = [place for place in _ranked(fai, response) if place != response[-1]]
    if len(ranked) < 2 * POSITIONS:
        return None
    high, low = ranked[-POSITIONS:], ranked[:POSITIONS]
    overlaps = _overlaps(subject, ids[0], [*high, *low], response[0] + longest)
    places = [(place - response[0]) / (response[-1] - response[0]) for place in (*high, *low)]
    return Perturbation(
        high=fmean(overlaps[:POSITIONS]),
        low=fmean(overlaps[POSITIONS:]),
        high_place=fmean(places[:POSITIONS]),
        low_place=fmean(places[POSITIONS:]),
    )


def response_of(segments: Segments) -> list[int]:
    """Return the positions of the response; none where all that was said are special tokens.

    Example:
        >>> response_of(Segments())
        []
    """
    return [place for run in segments if run.name == "response" for place in run.positions]


def _ranked(fai: Float[Tensor, " key"], response: Sequence[int]) -> list[int]:
    """Return the response positions whose FAI is defined, the lowest first."""
    defined = [place for place in response if not bool(fai[place].isnan())]
    return sorted(defined, key=lambda place: float(fai[place]))


@torch.no_grad()
def _overlaps(
    subject: attnscope.Subject, ids: Int[Tensor, " token"], places: Sequence[int], longest: int
) -> list[float]:
    """Return for each place the mean overlap over the candidates that are forced there."""
    model: Any = subject.model
    ids = ids.to(subject.device)
    logits = model(input_ids=ids[None]).logits[0]
    starts = []
    for place in places:
        row = logits[place - 1].clone()
        row[ids[place]] = -torch.inf
        starts += [torch.cat([ids[:place], one[None]]) for one in row.topk(CANDIDATES).indices]
    width = max(map(len, starts))
    mask = torch.stack([torch.arange(width) >= width - len(one) for one in starts])
    padded = torch.stack([pad(one, (width - len(one), 0)) for one in starts])
    produced = model.generate(
        input_ids=padded,
        attention_mask=mask.long().to(subject.device),
        do_sample=False,
        max_new_tokens=max(1, longest - min(places) - 1),
    )
    overlaps = []
    for number, place in enumerate(places):
        rows = produced[number * CANDIDATES : (number + 1) * CANDIDATES, width:]
        original = _words(subject, ids[place + 1 :])
        budget = max(1, longest - place - 1)
        overlaps.append(fmean(jaccard(original, _words(subject, row[:budget])) for row in rows))
    return overlaps


def _words(subject: attnscope.Subject, ids: Int[Tensor, " token"]) -> frozenset[str]:
    return content_words(subject.tokenizer.decode(ids, skip_special_tokens=True))
