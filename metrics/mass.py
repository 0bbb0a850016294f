"""What any linear operator has, distribution or not: what rows sum to, their sign, their diagonal.

For gates, signed and linear attention these tell what a distribution leaves no room for.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.rows import precise, require_positions

__all__ = ["negative_share", "own_share", "row_sum"]


def row_sum(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return what each row sums to: the factor by which a constant value comes out.

    1 for a distribution, less beside a learned sink or leaked padding, any number for linear
    attention without a normalizer; of a gate it is the gate itself. NaN for a query that sees no
    key. Our own measure.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> row_sum(DenseAttention(torch.tensor([[[2.0, -0.5], [0.25, 0.25]]]))).tolist()
        [[1.5, 0.5]]
    """
    return precise(attention.row_mass()).masked_fill(~attention.valid_queries, torch.nan)


def negative_share(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return which part of each row's absolute mass is negative, from 0 to 1.

    0 for every unsigned operator, 1/2 where positive and negative entries cancel. NaN for a row of
    zeros. Our own measure.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> negative_share(DenseAttention(torch.tensor([[[1.5, -0.5]]]))).tolist()  # 0.5 / 2
        [[0.25]]
    """
    absolute = precise(attention.absolute_mass())
    negative = (absolute - precise(attention.row_mass())) / 2
    return (negative / absolute).clamp(0, 1)


def own_share(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return which part of its absolute mass each query gives to its own position, from 0 to 1.

    1 for an operator that mixes nothing. NaN for a row of zeros. Our own measure.

    Raises:
        MetricError: Queries and keys are not positions of one sequence.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> own_share(DenseAttention(torch.tensor([[[1.0, 0.0], [0.75, 0.25]]]))).tolist()
        [[1.0, 0.25]]
    """
    require_positions(attention, "own_share")
    return precise(attention.band(1)[..., 0]).abs() / precise(attention.absolute_mass())
