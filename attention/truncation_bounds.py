"""Bounds of what a row says when only its largest weights and the sum of the others are known."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["entropy_bounds", "moment_bounds"]


def entropy_bounds(
    kept: Float[Tensor, "*row slot"],
    lost: Float[Tensor, "*row"],
    most: Float[Tensor, "*row"],
    unseen: Int[Tensor, "..."],
) -> tuple[Float[Tensor, "*row"], Float[Tensor, "*row"]]:
    """Return the least and greatest entropy in nats.

    Least where the lost sum lies on as few keys as it can, none with more than `most`; greatest
    where it is spread evenly over all keys that may hold it.

    Args:
        kept: The kept weights.
        lost: Sum of the others.
        most: The most that one of the others can be.
        unseen: How many keys may hold the lost sum.

    Example:
        >>> low, high = entropy_bounds(torch.tensor([0.5]), torch.tensor(0.5), torch.tensor(0.5),
        ...                            torch.tensor(2))
        >>> round(float(low.exp()), 4), round(float(high), 4)  # 2 keys; 0.5, 0.25 and 0.25
        (2.0, 1.0397)
    """
    known = -torch.special.xlogy(kept, kept).sum(-1)
    lost = lost.to(known.dtype)
    full = torch.where(most > 0, lost / most, 0.0).floor()
    rest = (lost - full * most).clamp_min(0)
    least = -full * torch.special.xlogy(most, most) - torch.special.xlogy(rest, rest)
    spread = lost / unseen.clamp_min(1)
    greatest = -unseen.clamp_min(1) * torch.special.xlogy(spread, spread)
    return known + least, known + torch.maximum(least, greatest)


def moment_bounds(
    known: Float[Tensor, "*row query"],
    lost: Float[Tensor, "*row query"],
    values: Float[Tensor, " key"],
    last: Int[Tensor, " query"] | None,
) -> tuple[Float[Tensor, "*row query"], Float[Tensor, "*row query"]]:
    """Return the least and greatest mean of a function of the key.

    Args:
        known: What the kept weights contribute.
        lost: Sum of the others.
        values: The function at each key.
        last: Last key that each query may read; None for all.

    Example:
        >>> bounds = moment_bounds(torch.tensor([1.0]), torch.tensor([0.5]),
        ...                        torch.tensor([0.0, 4.0, 9.0]), torch.tensor([1]))
        >>> [float(bound) for bound in bounds]
        [1.0, 3.0]
    """
    if last is None:
        least, greatest = values.min(), values.max()
    else:
        least, greatest = values.cummin(0).values[last], values.cummax(0).values[last]
    return known + lost * least, known + lost * greatest
