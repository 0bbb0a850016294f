"""`bottom_share`: the lowest share of some scores, the control of rules that select the highest."""

from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.metrics import top_share

__all__ = ["bottom_share"]


def bottom_share(
    scores: Float[Tensor, "*batch token"], share: float = 0.4, *, total: int | None = None
) -> Bool[Tensor, "*batch token"]:
    """Return which tokens have the lowest scores, by the same rules as `metrics.top_share`.

    Args:
        scores: One score per token; NaN is never selected.
        share: Share of the tokens to select.
        total: Number of tokens that the share is taken of; by default all.

    Reference: Li et al. 2025, arXiv:2510.13554, where credit on the bottom 40 % is worse than none.

    Example:
        >>> import torch
        >>> bottom_share(torch.tensor([0.1, 0.6, 0.2, 0.5, torch.nan])).tolist()  # 2 of 5
        [True, False, True, False, False]
    """
    return top_share(-scores, share, total=total)
