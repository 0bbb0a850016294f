"""`preplan_tokens` and `anchor_tokens`: tokens that open a chunk, and tokens read again later."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.metrics.selection import top_share

__all__ = ["anchor_tokens", "preplan_tokens", "waad_change"]


def waad_change(waad: Float[Tensor, "*batch token"]) -> Float[Tensor, "*batch token"]:
    """Return by how much WAAD changes at the next token, ``Delta_t = |WAAD_t - WAAD_{t+1}|``.

    Large where a token that looked far back is followed by one that looks at its neighbors, or the
    reverse. 0 where nothing changes; undefined, hence NaN, for the last token.

    Args:
        waad: WAAD of consecutive tokens, of the mean map of the local heads.

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.2.

    Example:
        >>> waad_change(torch.tensor([3.0, 1.0, 1.0, 2.0, 0.5])).tolist()
        [2.0, 0.0, 1.0, 1.5, nan]
    """
    change = (waad[..., :-1] - waad[..., 1:]).abs()
    return torch.cat([change, torch.full_like(waad[..., :1], torch.nan)], dim=-1)


def preplan_tokens(
    waad: Float[Tensor, "*batch token"], share: float = 0.4
) -> Bool[Tensor, "*batch token"]:
    """Return which tokens are preplan tokens: the top share by `waad_change`.

    Selection is by rank with a fixed count, earlier tokens first among equals; the last token,
    whose change is undefined, is never selected (count and ties are our reading).

    Args:
        waad: WAAD of consecutive tokens of the response.
        share: Share of the tokens to select.

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.2, local-chunk credit.

    Example:
        >>> preplan_tokens(torch.tensor([3.0, 1.0, 1.0, 2.0, 0.5])).tolist()  # changes 2, 0, 1, 1.5
        [True, False, False, True, False]
    """
    return top_share(waad_change(waad), share)


def anchor_tokens(
    fai: Float[Tensor, "*batch token"], share: float = 0.4
) -> Bool[Tensor, "*batch token"]:
    """Return which tokens are anchor tokens: the top share by FAI.

    Selection is by rank with a fixed count, earlier tokens first among equals; tokens without a
    horizon, whose FAI is NaN, are never selected (count and ties are our reading).

    Args:
        fai: FAI of the tokens of the response, of the mean map of the global heads.
        share: Share of the tokens to select.

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.2, global-anchor credit.

    Example:
        >>> anchor_tokens(torch.tensor([0.1, 0.6, 0.2, 0.5, 0.3])).tolist()
        [False, True, False, True, False]
    """
    return top_share(fai, share)
