"""How well a score ranks marked tokens above the others, with intervals over problems."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Area", "area", "areas"]

RESAMPLES, _SEED = 1000, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """An area under the curve with its 95 % interval, and its lead over another score's.

    Attributes:
        value: Chance that a marked token scores above another one, ties counted half.
        low: Lower end of the interval.
        high: Upper end.
        lead: Value less the baseline's.
        lead_low: Lower end of the lead's interval, over the same resamples.
        lead_high: Upper end.
    """

    value: float
    low: float
    high: float
    lead: float
    lead_low: float
    lead_high: float


def area(
    scores: Float[Tensor, " token"],
    marked: Bool[Tensor, " token"],
    weights: Float[Tensor, "resample token"] | None = None,
) -> Float[Tensor, " resample"]:
    """Return the area under the curve for each set of token weights; by default all weigh 1.

    An undefined score counts as the lowest, as no rule ever selects it.

    Example:
        >>> scores = torch.tensor([0.9, 0.5, 0.5, 0.1])  # 3 of 4 pairs right, and a tie: 3 1/2
        >>> area(scores, torch.tensor([True, True, False, False])).tolist()
        [0.875]
    """
    ranked = scores.double().nan_to_num(nan=-torch.inf)
    level = ranked.unique(return_inverse=True)[1]
    used = torch.ones(1, len(scores), dtype=torch.float64) if weights is None else weights.double()
    positive, negative = (
        torch.zeros(len(used), int(level.max()) + 1, dtype=torch.float64).index_add(
            1, level[chosen], used[:, chosen]
        )
        for chosen in (marked, ~marked)
    )
    below = negative.cumsum(1) - negative / 2
    return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def areas(
    scores: dict[str, Float[Tensor, " token"]],
    marked: Bool[Tensor, " token"],
    problem: Int[Tensor, " token"],
    baseline: str,
) -> dict[str, Area]:
    """Return the area of each score, with intervals from resampled problems.

    Args:
        scores: Scores by name.
        marked: The tokens that ought to rank high.
        problem: The problem that each token belongs to.
        baseline: The score that the others are compared with.
    """
    weights = _weights(problem)
    resampled = {name: area(values, marked, weights) for name, values in scores.items()}
    plain = {name: float(area(values, marked)) for name, values in scores.items()}
    found = {}
    for name, drawn in resampled.items():
        low, high = _interval(drawn)
        lead_low, lead_high = _interval(drawn - resampled[baseline])
        found[name] = Area(
            value=plain[name],
            low=low,
            high=high,
            lead=plain[name] - plain[baseline],
            lead_low=lead_low,
            lead_high=lead_high,
        )
    return found


def _weights(problem: Int[Tensor, " token"]) -> Float[Tensor, "resample token"]:
    generator = torch.Generator().manual_seed(_SEED)
    names, place = problem.unique(return_inverse=True)
    drawn = torch.randint(len(names), (RESAMPLES, len(names)), generator=generator)
    counts = torch.zeros(RESAMPLES, len(names)).scatter_add(1, drawn, torch.ones(drawn.shape))
    return counts[:, place]


def _interval(values: Float[Tensor, " resample"]) -> tuple[float, float]:
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high
