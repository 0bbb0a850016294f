"""`faithfulness_table`: whether taking the credited tokens away moves the target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.probes.errors import CaptureError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["FaithfulnessCurve", "deletion_curve", "faithfulness_table", "insertion_curve"]

Presence = Callable[[Tensor], Tensor]
"""A target by `(case, token)`: 1 where a token is there, 0 where it is not; a `TokenPresence`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaithfulnessCurve:
    """The target while tokens go or come, in the order of their credit.

    Attributes:
        shares: Share of the tokens that have gone (or come), from 0 to 1.
        values: The target at each share.
    """

    shares: Float[Tensor, " point"]
    values: Float[Tensor, " point"]

    @property
    def area(self) -> float:
        """Return the area under the curve by trapezoids: the mean of the target over shares."""
        return float(torch.trapezoid(self.values, self.shares))


def deletion_curve(
    presence: Presence, credit: Float[Tensor, " token"], *, points: int = 20
) -> FaithfulnessCurve:
    """Return the target while tokens are taken away, those of the highest credit first.

    Small areas are good: what was credited was needed. Positions whose credit is NaN stay.

    Args:
        presence: The target by what is there.
        credit: The credit of each token.
        points: How many shares are tried besides the start; no more than there are tokens.

    Raises:
        CaptureError: No token has a credit, or there is no point.

    Reference: Petsiuk et al. 2018, arXiv:1806.07421, section 3.2 (deletion and insertion).

    Example:
        >>> presence = lambda there: there @ torch.tensor([3.0, 1.0])
        >>> curve = deletion_curve(presence, torch.tensor([0.9, 0.1]))
        >>> curve.values.tolist(), curve.area
        ([4.0, 1.0, 0.0], 1.5)
    """
    return _curve(presence, credit, points, start=1.0)


def insertion_curve(
    presence: Presence, credit: Float[Tensor, " token"], *, points: int = 20
) -> FaithfulnessCurve:
    """Return the target while tokens come back to the baseline, the highest credit first.

    Large areas are good: what was credited suffices. Positions whose credit is NaN are there
    throughout.

    Args:
        presence: The target by what is there.
        credit: The credit of each token.
        points: How many shares are tried besides the start; no more than there are tokens.

    Raises:
        CaptureError: No token has a credit, or there is no point.

    Reference: Petsiuk et al. 2018, arXiv:1806.07421, section 3.2.

    Example:
        >>> presence = lambda there: there @ torch.tensor([3.0, 1.0])
        >>> insertion_curve(presence, torch.tensor([0.9, 0.1])).area
        2.5
    """
    return _curve(presence, credit, points, start=0.0)


def faithfulness_table(
    presence: Presence,
    credit: Float[Tensor, " token"],
    *,
    points: int = 20,
    orders: int = 10,
    seed: int = 0,
) -> "DataFrame":
    """Return the areas of deletion and insertion beside those of random orders.

    One row for each of the two: `area`, `random` (the mean area of random orders), `spread` (its
    standard deviation) and `gain`: how much better than random the credit is, positive if it is.

    Args:
        presence: The target by what is there.
        credit: The credit of each token.
        points: How many shares are tried besides the start.
        orders: How many random orders.
        seed: Seed of the random orders.

    Raises:
        CaptureError: No token has a credit, or there is no point or order.

    Reference: Petsiuk et al. 2018, arXiv:1806.07421; the comparison with random orders is ours.

    Example:
        >>> presence = lambda there: there @ torch.tensor([3.0, 1.0])
        >>> table = faithfulness_table(presence, torch.tensor([0.9, 0.1]))
        >>> table.area.tolist(), bool((table.gain >= 0).all())
        ([1.5, 2.5], True)
    """
    import pandas

    if orders < 2:
        raise CaptureError(f"random orders vary only if there are at least 2; got {orders}")
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(credit.shape, generator=generator) for _ in range(orders)]
    shuffled = [torch.where(credit.isnan().cpu(), torch.nan, order) for order in drawn]
    rows = {}
    for name, curve, sign in (("deletion", deletion_curve, -1), ("insertion", insertion_curve, 1)):
        area = curve(presence, credit, points=points).area
        areas = torch.tensor([curve(presence, order, points=points).area for order in shuffled])
        mean = float(areas.mean())
        rows[name] = [area, mean, float(areas.std()), sign * (area - mean)]
    table = pandas.DataFrame.from_dict(
        rows, orient="index", columns=["area", "random", "spread", "gain"]
    )
    return table.rename_axis("curve")


def _curve(
    presence: Presence, credit: Float[Tensor, " token"], points: int, *, start: float
) -> FaithfulnessCurve:
    order = _order(credit)
    if not len(order) or points < 1:
        raise CaptureError(
            f"a curve needs tokens with a credit and a point; got {len(order)} and {points}"
        )
    points = min(points, len(order))
    counts = torch.linspace(0, len(order), points + 1).round().long()
    there = torch.ones(points + 1, len(credit))
    there[:, order] = start
    for case, count in enumerate(counts.tolist()):
        there[case, order[:count]] = 1 - start
    with torch.no_grad():
        values = torch.cat([presence(case[None]) for case in _placed(there, presence)])
    return FaithfulnessCurve(shares=counts / len(order), values=values.float().cpu())


def _order(credit: Float[Tensor, " token"]) -> Int[Tensor, " some_token"]:
    """Return the tokens that have a credit, the highest first, equal ones by position."""
    known = (~credit.isnan()).nonzero().squeeze(-1).cpu()
    return known[credit.cpu()[known].argsort(descending=True, stable=True)]


def _placed(there: Tensor, presence: Presence) -> Tensor:
    """Return the cases in the type and place of the target's own whole input, if it has one."""
    whole = getattr(presence, "whole", there)
    return there.to(whole)
