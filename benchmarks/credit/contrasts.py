"""Paired differences between arms: estimate, hierarchical bootstrap, exact sign-flip test, Holm.

The plan names this file by its hash: it was fixed before the runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.credit.evaluation import SAMPLES, problem_numbers
from benchmarks.credit.records import RunKey, RunRecord

__all__ = ["Contrast", "Difference", "accuracy", "compare", "holm", "pairs_of", "sign_flip"]

RESAMPLES, _SEED, _MOST_PAIRS = 10_000, 0, 20

Contrast = tuple[str, str]
"""Two arms: how much better the first one is than the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One arm less another, in points of accuracy.

    Attributes:
        pairs: Number of pairs of runs.
        estimate: Mean difference.
        low: Lower end of the 95 % interval.
        high: Upper end.
        deviation: Standard deviation of the pairs' differences, over n - 1.
        p_value: Exact two-sided sign-flip p.
    """

    pairs: int
    estimate: float
    low: float
    high: float
    deviation: float
    p_value: float


def accuracy(run: RunRecord) -> float:
    """Return the share of the evaluation's samples that a run's policy got right, in percent."""
    return 100 * sum(map(int, run.solved)) / (SAMPLES * len(run.solved))


def pairs_of(runs: Sequence[RunRecord], contrast: Contrast) -> list[tuple[RunRecord, RunRecord]]:
    """Return the pairs of runs that differ in the arm alone.

    A seed at which any arm failed is left out for all arms.
    """
    failed = {(run.supervised, run.seed) for run in runs if run.failed}
    known: Mapping[RunKey, RunRecord] = {
        run.key: run for run in runs if (run.supervised, run.seed) not in failed
    }
    seeds = sorted({(key.supervised, key.seed) for key in known})
    pairs = [tuple(known.get(RunKey(*seed, arm)) for arm in contrast) for seed in seeds]
    return [(first, second) for first, second in pairs if first and second]


def compare(runs: Sequence[RunRecord], contrast: Contrast) -> Difference | None:
    """Return the difference of two arms, None where no pair of runs is in."""
    pairs = pairs_of(runs, contrast)
    if not pairs:
        return None
    differences = torch.tensor([accuracy(a) - accuracy(b) for a, b in pairs], dtype=torch.float64)
    resampled = _resampled(pairs)
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(
        pairs=len(pairs),
        estimate=float(differences.mean()),
        low=low,
        high=high,
        deviation=float(differences.std()) if len(pairs) > 1 else float("nan"),
        p_value=sign_flip(differences),
    )


def _resampled(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> Float[Tensor, " resample"]:
    """Return the difference over resamples: supervised seeds, RL seeds in each, problems in all."""
    generator = torch.Generator().manual_seed(_SEED)
    problem = problem_numbers()
    count = int(problem.max()) + 1
    by_problem = torch.zeros(len(pairs), count, dtype=torch.float64)
    for row, (first, second) in enumerate(pairs):
        difference = _digits(first) - _digits(second)
        by_problem[row].index_add_(0, problem, difference.double())
    samples = SAMPLES * torch.bincount(problem, minlength=count).double()
    chosen = torch.randint(count, (RESAMPLES, count), generator=generator)
    problems = torch.zeros(RESAMPLES, count, dtype=torch.float64)
    problems.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64))
    runs = _run_weights([first.supervised for first, _ in pairs], generator)
    return 100 * ((runs @ by_problem) * problems).sum(-1) / (problems @ samples)


def _digits(run: RunRecord) -> Int[Tensor, " prompt"]:
    return torch.tensor([int(digit) for digit in run.solved])


def _run_weights(
    supervised: Sequence[int], generator: torch.Generator
) -> Float[Tensor, "resample pair"]:
    """Return the weight of each pair in each resample; the weights of a resample sum to 1."""
    groups = [
        [row for row, own in enumerate(supervised) if own == seed]
        for seed in sorted(set(supervised))
    ]
    weights = torch.zeros(RESAMPLES, len(supervised), dtype=torch.float64)
    picked = torch.randint(len(groups), (RESAMPLES, len(groups)), generator=generator)
    for draw in range(len(groups)):
        for number, rows in enumerate(groups):
            inner = torch.randint(len(rows), (RESAMPLES, len(rows)), generator=generator)
            share = (picked[:, draw] == number).double() / len(groups) / len(rows)
            added = share[:, None].expand(-1, len(rows)).contiguous()
            weights.scatter_add_(1, torch.tensor(rows)[inner], added)
    return weights


def sign_flip(differences: Float[Tensor, " pair"]) -> float:
    """Return the share of all sign patterns whose mean is at least as far from 0: a two-sided p.

    Raises:
        ValueError: There are too many pairs to go through all patterns.

    Example:
        >>> sign_flip(torch.tensor([1.0, 2.0, 3.0]))  # only +++ and --- of 8 reach a sum of 6
        0.25
    """
    count = len(differences)
    if count > _MOST_PAIRS:
        raise ValueError(f"{count} pairs have too many sign patterns; {_MOST_PAIRS} at most")
    patterns = torch.arange(2**count).unsqueeze(1) >> torch.arange(count) & 1
    sums = (1.0 - 2.0 * patterns.double()) @ differences.double()
    observed = differences.double().sum().abs()
    return float((sums.abs() >= observed - 1e-9).double().mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]  # 3 x 0.01, 2 x 0.03, then no less
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected
