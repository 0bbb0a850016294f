"""How spread rows are: their entropy, its share of the largest possible, an effective count."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.rows import precise, row_shares

__all__ = ["attention_entropy", "normalized_entropy", "participation_ratio"]


def attention_entropy(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return the entropy of each row in nats, ``-sum_j A_tj ln A_tj`` with ``0 ln 0 = 0``.

    0 when a query reads one key alone, ln n when it reads n keys alike. The bound grows along a
    causal sequence (`normalized_entropy` takes that out). NaN for a query that sees no key. The
    source averages over the queries of a head; the mean of the rows gives that.

    Raises:
        OperatorError: Rows are not distributions; `normalized()` makes them so.

    Reference: Zhai et al. 2023, arXiv:2303.06296, attention entropy.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.1, 0.2, 0.3, 0.4]]]))
        >>> round(float(attention_entropy(A)), 5)
        1.27985
    """
    return precise(attention.entropy()).clamp_min(0)


def normalized_entropy(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return the entropy of each row divided by the largest possible, ln of the keys it can see.

    0 when a query reads one key alone, 1 when it reads all keys that it can see alike. NaN where it
    can see one key or none, as the first query of a causal sequence: 0/0. A causal query can see
    the keys up to its own position, any other all keys (our reading; what a window, padding or a
    document boundary hides counts as visible, which keeps the reading below 1).

    Raises:
        OperatorError: Rows are not distributions; `normalized()` makes them so.

    Reference: Zhai et al. 2023, arXiv:2303.06296, for the entropy; dividing is our reading.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]]))
        >>> [round(float(x), 4) for x in normalized_entropy(A)[0]]  # 0/0, ln 2 / ln 2, ln 2 / ln 3
        [nan, 1.0, 0.6309]
    """
    entropy = precise(attention.entropy()).clamp_min(0)
    visible = torch.full((attention.queries,), attention.keys, device=attention.device)
    if attention.causal and attention.offset is not None:
        position = torch.arange(attention.queries, device=attention.device) + attention.offset
        visible = (position + 1).clamp(0, attention.keys)
    largest = visible.to(entropy.dtype).log()
    return torch.where(visible > 1, entropy / largest, torch.nan)


def participation_ratio(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return the effective number of keys that each query reads, ``(sum_j A_tj)^2 / sum_j A_tj^2``.

    1 when a query reads one key alone, n when it reads n keys alike. For a distribution the
    numerator is 1; with a learned sink the rest of the row is measured. NaN for a query that sees
    no key.

    Raises:
        MetricError: The attention is not a distribution, nor a part of one.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]]))
        >>> participation_ratio(A).tolist()
        [[2.0, 4.0]]
    """
    mass = row_shares(attention, "participation_ratio")
    return mass.square() / precise(attention.power_sum(2.0))
