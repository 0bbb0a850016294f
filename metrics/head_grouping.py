"""`head_groups`: the heads that look nearest and furthest, and the mean reading of a group."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.metrics.errors import MetricError
from attnscope.metrics.selection import share_count, top_count

__all__ = ["HeadGroups", "group_mean", "head_groups"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadGroups:
    """Two groups of heads, as masks over the axes in which their spans were given.

    Attributes:
        local_heads: The heads that look back least.
        global_heads: The heads that look back furthest.
    """

    local_heads: Bool[Tensor, "*site head"]
    global_heads: Bool[Tensor, "*site head"]


def head_groups(spans: Float[Tensor, "*site head"], quantile: float = 0.3) -> HeadGroups:
    """Return the local and the global heads: the lowest and the highest quantile of spans.

    All heads given are sorted together, not layer by layer. Each group holds `quantile` of them,
    rounded to the nearest whole number, halves up, and one at least; of equal spans the first in
    (layer, head) order is taken first (rounding and ties are our reading). Heads whose span is
    NaN are not considered.

    Args:
        spans: The span of each considered head, from `head_span`, usually (layer, head).
        quantile: Share of the heads in each group.

    Raises:
        MetricError: The quantile is not between 0 and a half, or no two heads have a span.

    Reference: Li et al. 2025, arXiv:2510.13554, section 4.1, where 30 % is the example.

    Example:
        >>> groups = head_groups(torch.tensor([[1.0, 9.0, 2.0], [5.0, 8.0, 3.0]]))  # 1.8 heads: 2
        >>> groups.local_heads.tolist()
        [[True, False, True], [False, False, False]]
        >>> groups.global_heads.tolist()
        [[False, True, False], [False, True, False]]
    """
    if not 0 < quantile <= 0.5:
        raise MetricError(f"head group quantile is {quantile}; it is above 0 and at most 0.5")
    considered = int((~spans.isnan()).sum())
    if considered < 2:
        raise MetricError(
            f"head groups need two heads with a span; {considered} of {spans.numel()} has one"
        )
    count = min(max(1, share_count(quantile, considered)), considered // 2)
    flat = spans.reshape(-1)
    far = top_count(flat, count)
    # A head that ties with both ends stays in the group that took it first.
    near = top_count(-flat.masked_fill(far, torch.nan), count)
    return HeadGroups(local_heads=near.reshape(spans.shape), global_heads=far.reshape(spans.shape))


def group_mean(
    readings: Float[Tensor, "*site head token"], members: Bool[Tensor, "*site head"]
) -> Float[Tensor, " token"]:
    """Return the plain mean of readings over the heads of a group.

    Of a reading that is linear in the attention map (WAAD, FAI, span) this is the reading of the
    group's mean map.

    Raises:
        MetricError: The group is empty.

    Reference: Li et al. 2025, arXiv:2510.13554, equation 8.

    Example:
        >>> readings = torch.tensor([[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]])
        >>> group_mean(readings, torch.tensor([True, True, False])).tolist()
        [2.0, 3.0]
    """
    if not bool(members.any()):
        raise MetricError("the group of heads is empty: there is nothing to take the mean of")
    return readings[members].mean(0)
