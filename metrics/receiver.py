"""Receiver heads: heads whose later sentences return to few earlier sentences."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise, require_positions, row_shares
from attnscope.metrics.selection import top_count

__all__ = ["receiver_heads", "receiver_score", "sentence_attention", "vertical_scores"]

Spans = Sequence[tuple[int, int]]

_TILE = 2**22
"""Entries of the tiles that a pass over the rows holds at once."""


def sentence_attention(
    attention: AttentionOperator, sentences: Spans
) -> Float[Tensor, "*batch head sentence sentence"]:
    """Return the map averaged over sentences: entry [i, j] is the mean over their tokens of `A_ts`.

    One pass over tiles of rows, with O(T block) memory, however many sentences there are.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        sentences: First position of each sentence and the one after its last.

    Raises:
        MetricError: There is no sentence; one is empty, overlaps another or reaches outside; or the
            attention is no distribution along one sequence.

    Reference: Bogdan et al. 2025, arXiv:2506.19143, sentence-averaged attention.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.4, 0.4]]]))
        >>> sentence_attention(A, [(0, 2), (2, 3)])[0, 1].tolist()  # (0.2 + 0.4) / 2, 0.4
        [0.30000001192092896, 0.4000000059604645]
    """
    offset = require_positions(attention, "sentence_attention")
    row_shares(attention, "sentence_attention")
    _check(sentences, max(0, offset), min(attention.keys, attention.queries + offset), attention)
    lengths = torch.tensor([stop - start for start, stop in sentences])
    label = torch.full((attention.keys,), len(sentences))  # the last label is of no sentence
    for number, (start, stop) in enumerate(sentences):
        label[start:stop] = number
    label, lengths = label.to(attention.device), lengths.to(attention.device)
    rows = slice(sentences[0][0] - offset, sentences[-1][1] - offset)
    count = len(sentences)
    total = _sum_by_label(attention, label, rows, offset)[..., :count, :count]
    return total / (lengths[:, None] * lengths)


def _check(sentences: Spans, first: int, stop: int, attention: AttentionOperator) -> None:
    """Refuse sentences that are empty, outside, out of order, or none."""
    if not sentences:
        raise MetricError("sentence_attention needs sentences; none is given")
    before = first
    for start, end in sentences:
        if not before <= start < end <= stop:
            raise MetricError(
                f"sentence {start} to {end} is empty, overlaps the one before, or reaches outside "
                f"the positions {first} to {stop} of {attention!r}"
            )
        before = end


def _sum_by_label(
    attention: AttentionOperator, label: Int[Tensor, " key"], rows: slice, offset: int
) -> Float[Tensor, "*batch head label label"]:
    """Return the attention of all rows of a label to all keys of a label, tile by tile."""
    labels = int(label.max()) + 1
    heads = attention.shape[:-2]
    total = precise(torch.zeros((*heads, labels, labels), dtype=attention.dtype)).to(label.device)
    step = max(16, _TILE // max(1, heads.numel() * attention.keys))
    for start in range(rows.start, rows.stop, step):
        block = slice(start, min(start + step, rows.stop))
        seen = slice(0, block.stop + offset) if attention.causal else slice(None)
        tile = precise(attention.tile(block, seen))
        present, row = label[block.start + offset : block.stop + offset].unique(return_inverse=True)
        by_row = tile.new_zeros((*heads, len(present), tile.shape[-1])).index_add(-2, row, tile)
        pairs = tile.new_zeros((*heads, len(present), labels)).index_add(-1, label[seen], by_row)
        total = total.index_add(-2, present, pairs)
    return total


def vertical_scores(
    averaged: Float[Tensor, "*batch sentence sentence"], proximity: int = 4
) -> Float[Tensor, "*batch sentence"]:
    """Return the vertical score of each sentence: the mean attention of sentences well behind it.

    The mean of column j over the rows ``i >= j + proximity``; nearer pairs are ignored, and the
    last `proximity` sentences, which nothing is far enough behind, read NaN.

    Args:
        averaged: Attention averaged over sentences.
        proximity: Least distance, in sentences, that counts.

    Raises:
        MetricError: The proximity is below 1, so that a sentence would score itself.

    Reference: Bogdan et al. 2025, arXiv:2506.19143, vertical attention scores; distance 4 and no
        depth control, as the authors' code finds receiver heads.

    Example:
        >>> averaged = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.2, 0.3, 0.5]])
        >>> [round(float(x), 4) for x in vertical_scores(averaged, proximity=1)]  # (0.6 + 0.2) / 2
        [0.4, 0.3, nan]
    """
    if proximity < 1:
        raise MetricError(f"vertical score proximity is {proximity}; it is 1 or more")
    counted = torch.ones(averaged.shape[-2:], dtype=torch.bool, device=averaged.device)
    counted = counted.tril(-proximity)
    count = counted.sum(-2)
    total = torch.where(counted, averaged, 0).sum(-2)
    return torch.where(count > 0, total / count, torch.nan)


def receiver_score(vertical: Float[Tensor, "*batch sentence"]) -> Float[Tensor, "*batch"]:
    """Return how peaked the vertical scores of a head are: their excess kurtosis.

    The fourth central moment over the squared variance, less 3, both over n (Fisher's definition,
    biased), of the sentences that have a score. 0 for a normal distribution, large for a head whose
    later sentences return to few earlier ones; never below -2. NaN for fewer than two scores or
    scores without variance.

    Args:
        vertical: Vertical scores; NaN is left out. Average the result over responses.

    Reference: Bogdan et al. 2025, arXiv:2506.19143, receiver heads.

    Example:
        >>> float(receiver_score(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, torch.nan])))  # 3.25 - 3
        0.25
    """
    scores = vertical.double()
    centered = scores - scores.nanmean(-1, keepdim=True)
    variance = centered.square().nanmean(-1)
    kurtosis = centered.pow(4).nanmean(-1) / variance.square() - 3
    spread = scores.nan_to_num(-torch.inf).amax(-1) > scores.nan_to_num(torch.inf).amin(-1)
    return torch.where(spread, kurtosis, torch.nan).to(vertical.dtype)


def receiver_heads(
    scores: Float[Tensor, "*site head"], count: int = 20
) -> Bool[Tensor, "*site head"]:
    """Return which heads are receiver heads: the `count` with the highest receiver scores.

    All heads given are ranked together; of equal scores the first in (layer, head) order is taken
    first, and heads without a score are never taken.

    Args:
        scores: The receiver score of each head, usually (layer, head).
        count: Number of receiver heads.

    Reference: Bogdan et al. 2025, arXiv:2506.19143, top 20 heads.

    Example:
        >>> receiver_heads(torch.tensor([[0.5, 7.0], [torch.nan, 3.0]]), count=2).tolist()
        [[False, True], [False, True]]
    """
    return top_count(scores.reshape(-1), count).reshape(scores.shape)
