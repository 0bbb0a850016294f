"""Saliency of keys: attention times gradient, on the row of the query that predicts a token."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator, OuterAttention
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise

__all__ = [
    "NormScope",
    "candidate_saliency",
    "layer_saliency",
    "saliency_norm",
    "saliency_rows",
    "saliency_threshold",
]

NormScope = str | None
"""What the head sum is divided by the L2 norm of: `"row"`, `"matrix"`, or None for nothing."""


def saliency_rows(
    attention: AttentionOperator,
    value: Float[Tensor, "*batch kv_head key dim"],
    gradient: Float[Tensor, "*batch head query dim"],
    queries: Sequence[int],
) -> Float[Tensor, "*batch head row key"]:
    """Return ``|A_tj dL/dA_tj|`` of chosen rows, with ``dL/dA_tj = dL/dz_t . v_j``.

    0 where a key is not read or does not matter to L; without an upper bound. It is made of the
    operator's factors, one row at a time, so that no map is built.

    **The row is the query that predicts the token**, the last position of the prefix. Rows behind
    it cannot reach the loss, so that their gradient, and with it their saliency, is exactly 0; the
    published script reads the token's own row, which is one of them.

    Args:
        attention: The map A.
        value: What it reads; a group of heads may share one.
        gradient: dL/dz, z being the heads' outputs before W_O, as a capture with `gradient=` keeps.
        queries: The rows.

    Raises:
        MetricError: Values or gradient do not fit the attention.

    Reference: Zhang et al. 2026, arXiv:2601.20279, equations 3 and 4; the lower triangle that it
        takes is where causal attention is not 0.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.2, 0.3, 0.5]]]))
        >>> value = torch.tensor([[[1.0], [-2.0], [0.4]]])
        >>> [round(float(x), 4) for x in saliency_rows(A, value, torch.ones(1, 1, 1), [0])[0, 0]]
        [0.2, 0.6, 0.2]
    """
    rows = list(queries)
    return (precise(attention.rows(rows)) * _outer(attention, value, gradient).rows(rows)).abs()


def saliency_norm(
    attention: AttentionOperator,
    value: Float[Tensor, "*batch kv_head key dim"],
    gradient: Float[Tensor, "*batch head query dim"],
) -> Float[Tensor, "*batch"]:
    """Return the L2 norm of the whole map of head sums, in blocks of rows.

    Raises:
        MetricError: Values or gradient do not fit the attention.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
        >>> value, gradient = torch.tensor([[[3.0], [8.0]]]), torch.ones(1, 2, 1)
        >>> round(float(saliency_norm(A, value, gradient)) ** 2, 4)  # 3^2 + 1.5^2 + 4^2
        27.25
    """
    outer = _outer(attention, value, gradient)
    squares = [
        (precise(tile) * outer.rows(block)).abs().sum(-3).square().sum((-2, -1))
        for block, tile in attention.blocks()
    ]
    return torch.stack(squares).sum(0).sqrt()


def layer_saliency(
    attention: AttentionOperator,
    value: Float[Tensor, "*batch kv_head key dim"],
    gradient: Float[Tensor, "*batch head query dim"],
    queries: Sequence[int],
    norm: NormScope = "row",
) -> Float[Tensor, "*batch row key"]:
    """Return the saliency of a layer on chosen rows: the sum over heads, divided by its L2 norm.

    From 0 to 1 with a norm; NaN where the norm is 0, which is where L does not depend on what is
    read.

    Args:
        attention: The map A.
        value: What it reads.
        gradient: dL/dz.
        queries: The rows.
        norm: `"row"`, so that each row has length 1, as the published script does; `"matrix"`, one
            norm for the whole map, in a pass over all rows; None for the plain sum, as in the
            paper's equation 11. The paper does not say which norm its equation 5 takes.

    Raises:
        MetricError: Values or gradient do not fit the attention, or there is no such norm.

    Reference: Zhang et al. 2026, arXiv:2601.20279, equation 5.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.2, 0.3, 0.5]]]))
        >>> value = torch.tensor([[[1.0], [-2.0], [0.4]]])
        >>> [round(float(x), 5) for x in layer_saliency(A, value, torch.ones(1, 1, 1), [0])[0]]
        [0.30151, 0.90453, 0.30151]
    """
    summed = saliency_rows(attention, value, gradient, queries).sum(-3)
    if norm is None:
        return summed
    if norm == "row":
        length = torch.linalg.vector_norm(summed, dim=-1, keepdim=True)
    elif norm == "matrix":
        length = saliency_norm(attention, value, gradient)[..., None, None]
    else:
        raise MetricError(f"no saliency norm {norm!r}; there are 'row', 'matrix' and None")
    return summed / length


def candidate_saliency(
    saliency: Float[Tensor, "*batch layer key"], keys: Sequence[int]
) -> Float[Tensor, "*batch"]:
    """Return the score of a candidate token: the mean saliency of the outputs before it.

    ``S(c) = 1 / (|L| |J|) sum_{l in L} sum_{j in J} S_l[p, j]``, p being the position that predicts
    the candidate. From 0 to 1 where rows have length 1; NaN without any output before it.

    Args:
        saliency: `layer_saliency` of row p under the candidate's own loss, for each target layer.
        keys: J: `response_keys`, the true outputs (our default), or `after_image_keys`, everything
            behind the image as in the paper, the question included.

    Raises:
        MetricError: A key lies outside.

    Reference: Zhang et al. 2026, arXiv:2601.20279, equation 6.

    Example:
        >>> rows = torch.tensor([[0.30151, 0.90453, 0.30151]])
        >>> round(float(candidate_saliency(rows, [1])), 5)
        0.90453
    """
    outside = [key for key in keys if not 0 <= key < saliency.shape[-1]]
    if outside:
        raise MetricError(f"no keys {outside}; the saliency has {saliency.shape[-1]}")
    return saliency[..., list(keys)].mean((-2, -1))


def saliency_threshold(history: Sequence[float], alpha: float = 0.6, window: int = 5) -> float:
    """Return the score that a candidate has to reach: alpha times the mean of the recent ones.

    The equation takes the scores at distances 0 to `window` from the last output, which are
    `window + 1` of them. 0 where there are none, so that a first candidate always passes; a score
    that was undefined (NaN) does not count.

    Args:
        history: Scores of the accepted tokens, in order.
        alpha: Share of the mean to reach; 0.6 in the paper's section 4.5.
        window: Largest distance; 5 in the published code.

    Raises:
        MetricError: The window is negative.

    Reference: Zhang et al. 2026, arXiv:2601.20279, equation 7.

    Example:
        >>> round(saliency_threshold([0.5, 0.4, 0.6]), 4)
        0.3
        >>> saliency_threshold([])
        0.0
    """
    if window < 0:
        raise MetricError(f"window is {window}; it is a distance, at least 0")
    recent = torch.tensor(list(history)[-(window + 1) :], dtype=torch.float64)
    mean = recent.nanmean()
    return 0.0 if bool(mean.isnan()) else alpha * float(mean)


def _outer(attention: AttentionOperator, value: Tensor, gradient: Tensor) -> OuterAttention:
    fits = gradient.shape[:-1] == attention.shape[:-1] and value.shape[-2] == attention.keys
    if not fits:
        raise MetricError(
            f"values {tuple(value.shape)} and gradient {tuple(gradient.shape)} do not fit "
            f"{attention!r}; they need the shapes (*batch, kv_head, key, dim) and "
            "(*batch, head, query, dim)"
        )
    return OuterAttention(gradient, value)
