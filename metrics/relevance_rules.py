"""The rules of relevance on whole matrices, for models whose streams attend to each other."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import TILE_LIMIT, AttentionOperator
from attnscope.metrics.errors import MetricError

__all__ = ["co_attention_rule", "normalized_relevance", "self_attention_rule"]


def self_attention_rule(
    relevance: Float[Tensor, "token other"], influence: AttentionOperator
) -> Float[Tensor, "token other"]:
    """Return `R + Abar R`: the relevance after one self-attention of the row's stream.

    It holds for the stream's own relevance, which starts as I, and for that of any other stream to
    it, which starts as 0.

    Args:
        relevance: `R`, whole.
        influence: `positive_gradient` of the layer.

    Raises:
        MetricError: The matrix is too large to hold, or does not fit.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, rules of self-attention.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> layer = DenseAttention(torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]))
        >>> self_attention_rule(self_attention_rule(torch.eye(2), layer), layer).tolist()
        [[2.25, 0.0], [0.0, 1.0]]
    """
    return relevance + _applied(influence, relevance)


def normalized_relevance(
    relevance: Float[Tensor, "token token"],
) -> Float[Tensor, "token token"]:
    """Return `D (R - I) + I`, the rows of `D (R - I)` summing to 1.

    A row to which no layer added anything stays that of I, where public code divides 0 by 0.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, the normalization in its co-attention.

    Example:
        >>> normalized_relevance(torch.tensor([[1.0, 0.0], [0.5, 2.5]])).tolist()
        [[1.0, 0.0], [0.25, 1.75]]
    """
    own = torch.eye(len(relevance), dtype=relevance.dtype, device=relevance.device)
    excess = relevance - own
    mass = excess.sum(-1, keepdim=True)
    return torch.where(mass == 0, 0.0, excess / mass) + own


def co_attention_rule(
    influence: AttentionOperator,
    own: Float[Tensor, "token token"],
    other: Float[Tensor, "key key"],
    to_other: Float[Tensor, "token key"],
    back: Float[Tensor, "key token"],
) -> tuple[Float[Tensor, "token token"], Float[Tensor, "token key"]]:
    """Return a stream's own relevance and that of the other, after it has attended to the other.

    ``R_sq + R_ss_n^T Abar R_qq_n`` is the relevance of the other stream q to this stream s, and
    ``R_ss + Abar R_qs`` this stream's own. Both are of the matrices before the attention; where two
    streams attend to each other at once, both calls take those.

    Args:
        influence: `positive_gradient` of the attention from this stream's queries to the other's
            keys.
        own: `R_ss`, starting as I.
        other: `R_qq`, starting as I.
        to_other: `R_sq`, starting as 0.
        back: `R_qs`, starting as 0.

    Raises:
        MetricError: A matrix is too large to hold, or does not fit.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, rules of co-attention.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> read = DenseAttention(torch.tensor([[[0.2, 0.6]]]), offset=None)
        >>> start = torch.eye(1), torch.eye(2), torch.zeros(1, 2), torch.zeros(2, 1)
        >>> own, to_other = co_attention_rule(read, *start)
        >>> own.tolist(), [round(float(x), 4) for x in to_other[0]]
        ([[1.0]], [0.2, 0.6])
    """
    read = _applied(influence, normalized_relevance(other))
    added = normalized_relevance(own).mT @ read
    return own + _applied(influence, back), to_other + added


def _applied(influence: AttentionOperator, matrix: Tensor) -> Tensor:
    """Return the mean over heads times a matrix."""
    size = influence.queries * matrix.shape[-1]
    if size > TILE_LIMIT or influence.keys != len(matrix) or len(influence.shape) != 3:
        raise MetricError(
            f"{influence!r} cannot be followed by a matrix {tuple(matrix.shape)}: it needs "
            f"{influence.keys} rows, no batch axis, and at most {TILE_LIMIT:,} entries (of one "
            "token, chefer_relevance takes no matrix)"
        )
    return influence.mean_heads().apply(matrix.unsqueeze(0)).squeeze(0)
