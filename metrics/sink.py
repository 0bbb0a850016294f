"""Attention sinks: what each key receives, the mass on the first token, the share of sink heads."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import Rows, chosen_rows, mean_rows, precise, row_shares

__all__ = ["received_attention", "sink_mass", "sink_rate"]


def received_attention(attention: AttentionOperator) -> Float[Tensor, "*batch head key"]:
    """Return the attention that each key receives, on average over the queries that can see it.

    ``a_k = 1/(T - k + 1) sum_{i >= k} A_ik`` for causal attention, the key's own query included;
    the plain mean over queries otherwise. 0 for a key that nobody reads, 1 for one that takes all
    of every query that comes. NaN for a key that no query can see. Short sequences have sinks of
    their own: a uniform causal head over 3 tokens gives its first token 0.6111.

    What a sliding window hides counts as seen and not read (our reading).

    Raises:
        MetricError: The attention is not a distribution.

    Reference: Gu et al. 2024, arXiv:2410.10781, importance of a key.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.7, 0.2, 0.1]]]))
        >>> [round(float(x), 4) for x in received_attention(A)[0]]  # 2.5 / 3, 0.4 / 2, 0.1 / 1
        [0.8333, 0.2, 0.1]
    """
    row_shares(attention, "received_attention")
    seeing = attention.valid_queries.long()
    if attention.causal and attention.offset is not None:
        from_row = torch.arange(attention.keys, device=attention.device) - attention.offset
        at_or_behind = seeing.flip(-1).cumsum(-1).flip(-1)
        nobody = torch.zeros_like(at_or_behind[..., :1])
        count = torch.cat([at_or_behind, nobody], -1)[..., from_row.clamp(0, attention.queries)]
    else:
        count = seeing.sum(-1, keepdim=True)
    return torch.where(count > 0, precise(attention.column_mass()) / count, torch.nan)


def sink_mass(
    attention: AttentionOperator, keys: Sequence[int] = (0,), queries: Rows | None = None
) -> Float[Tensor, "*batch head"]:
    """Return the share of its attention that each head gives to sink positions.

    The mean over queries of what they give to the keys together: 0 when these are ignored, 1 when
    nothing else is read. A uniform causal head over n tokens reads H(n) / n on the first one.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        keys: The sink positions; by default the first token.
        queries: Rows to average over; by default all.

    Raises:
        MetricError: The attention is not a distribution.

    Reference: Xiao et al. 2023, arXiv:2309.17453, section 3.1, on the first tokens as sinks.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.6, 0.3, 0.1]]]))
        >>> round(float(sink_mass(A)), 4)  # (1 + 0.8 + 0.6) / 3
        0.8
    """
    row_shares(attention, "sink_mass")
    mass = precise(attention.columns(list(dict.fromkeys(keys)))).sum(-1)
    return mean_rows(mass, chosen_rows(attention, queries))


def sink_rate(
    received: Float[Tensor, "*site head key"], key: int = 0, threshold: float = 0.3
) -> Float[Tensor, ""]:
    """Return the percentage of heads for which a key is a sink.

    A head counts when the key's `received_attention` is above the threshold, strictly. 0 when the
    key is a sink for no head, 100 when it is for all. All heads given count alike, whatever their
    layer; heads in which the key is never seen (NaN) do not count.

    The number depends on the threshold and on the sequence length (the reference uses 0.3 and 64
    tokens): compare like with like.

    Args:
        received: Received attention of all considered heads, usually (layer, head, key).
        key: The position in question.
        threshold: Received attention above which a key is a sink.

    Raises:
        MetricError: There is no such key.

    Reference: Gu et al. 2024, arXiv:2410.10781, the sink metric; it averages over samples too.

    Example:
        >>> received = torch.tensor([[0.8333, 0.2, 0.1], [0.3, 0.3, 0.4]])
        >>> float(sink_rate(received)), float(sink_rate(received, key=2))  # 0.3 is not above 0.3
        (50.0, 50.0)
    """
    if not -received.shape[-1] <= key < received.shape[-1]:
        raise MetricError(f"sink_rate of key {key}: there are {received.shape[-1]} keys")
    at_key = received[..., key]
    return 100 * (at_key[~at_key.isnan()] > threshold).float().mean()
