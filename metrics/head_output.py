"""`head_outputs`: what heads read, before the output projection mixes them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise

__all__ = ["head_outputs"]


def head_outputs(
    attention: AttentionOperator,
    value: Float[Tensor, "*batch kv_head key dim"],
    queries: Sequence[int],
) -> Float[Tensor, "*batch head row dim"]:
    """Return z, the outputs of the heads before W_O, at chosen queries: ``z_t = sum_j A_tj v_j``.

    There is one output per query head, also where groups of heads share their values.

    Raises:
        MetricError: The values do not fit the heads, or a query lies outside.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0], [0.25, 0.75]], [[1.0, 0.0], [0.5, 0.5]]]))
        >>> head_outputs(A, torch.tensor([[[4.0], [8.0]]]), [1]).tolist()  # one value for both
        [[[7.0]], [[6.0]]]
    """
    if attention.heads % value.shape[-3] or value.shape[-2] != attention.keys:
        raise MetricError(
            f"values {tuple(value.shape)} do not fit {attention!r}; they need the shape "
            "(*batch, kv_head, key, dim)"
        )
    outside = [query for query in queries if not -attention.queries <= query < attention.queries]
    if outside:
        raise MetricError(f"no queries {outside}; {attention!r} has {attention.queries}")
    shared = value.repeat_interleave(attention.heads // value.shape[-3], dim=-3)
    # One fused call for all rows costs the memory of z; chosen rows would be dense ones.
    rows = torch.as_tensor(list(queries), device=attention.device) % attention.queries
    return precise(attention.apply(shared).index_select(-2, rows))
