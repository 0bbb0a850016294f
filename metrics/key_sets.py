"""`mass_on`: what each query gives to sets of keys, in one product with their indicators."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise, row_shares

__all__ = ["mass_on"]


def mass_on(
    attention: AttentionOperator, sets: Sequence[Sequence[int]], metric: str
) -> Float[Tensor, "*batch head query set"]:
    """Return what each query gives to sets of keys, NaN for a query that sees no key.

    The sets may overlap. One `apply`, so that it costs what the mechanism itself costs.

    Raises:
        MetricError: A key lies outside, or entries are not shares of a whole.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.25, 0.5, 0.25]]]))
        >>> mass_on(A, [[0], [1, 2]], "example").tolist()
        [[[0.25, 0.75]]]
    """
    share = row_shares(attention, metric)
    columns = torch.zeros(attention.keys, len(sets), dtype=attention.dtype, device=attention.device)
    for number, keys in enumerate(sets):
        outside = [key for key in keys if not 0 <= key < attention.keys]
        if outside:
            raise MetricError(
                f"{metric} of the keys {outside}: those of {attention!r} go from 0 to "
                f"{attention.keys - 1}"
            )
        columns[list(keys), number] = 1
    shared = columns.expand(*attention.shape[:-3], 1, -1, -1)
    mass = precise(attention.apply(shared)).clamp_min(0.0)  # kernels leave a rounding below 0
    return torch.where(share.isnan().unsqueeze(-1), torch.nan, mass)
