"""`top_share`: the highest share of some scores, by rank, so that ties never change its size."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.metrics.errors import MetricError

__all__ = ["share_count", "top_count", "top_share"]


def share_count(share: float, total: int) -> int:
    """Return how many of `total` a share is: the nearest whole number, halves up.

    Raises:
        MetricError: The share lies outside 0 to 1.

    Example:
        >>> share_count(0.4, 5), share_count(0.3, 5), share_count(0.3, 160)  # 2, 1.5, 48
        (2, 2, 48)
    """
    if not 0 <= share <= 1:
        raise MetricError(f"share is {share}; it lies between 0 and 1")
    # Rounded first, so that 0.3 * 5 is 1.5 and not the float just below it.
    return int(round(share * total, 9) + 0.5)


def top_share(
    scores: Float[Tensor, "*batch token"], share: float = 0.4, *, total: int | None = None
) -> Bool[Tensor, "*batch token"]:
    """Return which tokens have the highest scores, a fixed share of all of them.

    Selection is by rank: `share` of the tokens (see `share_count`), whatever their values. Among
    equal scores the earlier token comes first. A NaN score is never selected, so that fewer are
    chosen where too few scores are defined.

    Selecting every score at or above a quantile instead would take far more than the share
    wherever many scores are equal.

    Args:
        scores: One score per token.
        share: Share of the tokens to select.
        total: Number of tokens that the share is taken of; by default all, those with NaN included.

    Raises:
        MetricError: The share lies outside 0 to 1.

    Example:
        >>> top_share(torch.tensor([0.1, 0.6, 0.2, 0.5, torch.nan])).tolist()  # 2 of 5
        [False, True, False, True, False]
        >>> top_share(torch.tensor([0.0, 0.0, 0.0, 0.0]), 0.5).tolist()  # ties: the earlier tokens
        [True, True, False, False]
    """
    return top_count(scores, share_count(share, scores.shape[-1] if total is None else total))


def top_count(scores: Float[Tensor, "*batch token"], count: int) -> Bool[Tensor, "*batch token"]:
    """Return which tokens have the `count` highest scores, by the same rules as `top_share`.

    Example:
        >>> top_count(torch.tensor([2.0, 3.0, 3.0, torch.nan]), 2).tolist()
        [False, True, True, False]
    """
    undefined = scores.isnan()
    order = scores.masked_fill(undefined, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    chosen = torch.zeros_like(undefined).scatter(-1, order[..., :count], True)
    return chosen & ~undefined
