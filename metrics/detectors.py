"""Head detectors: attention to the previous token, to duplicates, and to what followed them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.occurrences import attention_to_matches
from attnscope.metrics.rows import (
    Rows,
    chosen_rows,
    mean_rows,
    precise,
    require_positions,
    row_shares,
)

__all__ = [
    "detector_score",
    "duplicate_token_mass",
    "induction_mass",
    "pattern_share_score",
    "previous_token_mass",
]


def previous_token_mass(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return what each query gives to the token before it, ``A[t, t-1]``.

    1 for a perfect previous-token head, 0 for a head that never looks there. NaN for the first
    token, which has no previous one, and for queries that see no key.

    Raises:
        MetricError: The attention is not a distribution along one sequence.

    Reference: Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); Olsson et al.
        2022, arXiv:2209.11895.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> [round(float(x), 4) for x in previous_token_mass(A)[0]]
        [nan, 0.5, 0.3]
    """
    offset = require_positions(attention, "previous_token")
    mass = row_shares(attention, "previous_token")
    position = torch.arange(attention.queries, device=attention.device) + offset
    exists = (position >= 1) & (position <= attention.keys) & ~mass.isnan()
    return torch.where(exists, precise(attention.band(2))[..., 1], torch.nan)


def duplicate_token_mass(
    attention: AttentionOperator, ids: Sequence[int]
) -> Float[Tensor, "*batch head query"]:
    """Return what each query gives to earlier occurrences of its own token.

    ``sum of A_ts over s < t with token_s = token_t``: 1 for a perfect duplicate-token head. NaN for
    a token that has not occurred before, and for queries that see no key.

    Args:
        attention: Attention along one sequence whose rows are distributions, or parts of one.
        ids: The token at each key.

    Raises:
        MetricError: There is not one id per key, or the attention is no distribution along one
            sequence.

    Reference: Wang et al. 2022, arXiv:2211.00593, duplicate token heads.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> [round(float(x), 4) for x in duplicate_token_mass(A, [7, 5, 7])[0]]
        [nan, nan, 0.2]
    """
    token, position = _tokens(attention, ids, "duplicate_token")
    mass, matches = attention_to_matches(attention, token[position], token, position - 1)
    return _where_matched(attention, mass, matches)


def induction_mass(
    attention: AttentionOperator, ids: Sequence[int]
) -> Float[Tensor, "*batch head query"]:
    """Return what each query gives to tokens that followed an earlier occurrence of its own token.

    ``sum of A_ts over s <= t with token_{s-1} = token_t``: 1 for a perfect induction head. NaN for
    a token that has not occurred before, and for queries that see no key. On a random sequence
    said twice this is the prefix-matching score, token by token. A token that repeats the one
    before it follows an occurrence itself, so its own position counts.

    Args:
        attention: Attention along one sequence whose rows are distributions, or parts of one.
        ids: The token at each key.

    Raises:
        MetricError: There is not one id per key, or the attention is no distribution along one
            sequence.

    Reference: Olsson et al. 2022, arXiv:2209.11895, prefix matching.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> [round(float(x), 4) for x in induction_mass(A, [7, 5, 7])[0]]  # 5 followed the first 7
        [nan, nan, 0.3]
    """
    token, position = _tokens(attention, ids, "induction")
    # Labels from 1, so that nothing is looked for at the first key, which follows nothing.
    before = torch.cat([torch.zeros(1, dtype=torch.long), token[:-1] + 1])
    mass, matches = attention_to_matches(attention, token[position] + 1, before, position)
    return _where_matched(attention, mass, matches)


def detector_score(
    attention: AttentionOperator,
    mass: Float[Tensor, "*batch head query"],
    queries: Rows | None = None,
) -> Float[Tensor, "*batch head"]:
    """Return the score of each head: the mean of a detector's mass over the queries that have one.

    Queries without a target (NaN) are left out, so that a perfect head scores 1 on any text; NaN
    where no query has one. `pattern_share_score` counts them as misses.

    Args:
        attention: The operator that the mass was taken of.
        mass: What `previous_token_mass`, `duplicate_token_mass` or `induction_mass` returned.
        queries: Rows to average over; by default all.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> round(float(detector_score(A, previous_token_mass(A))), 4)  # (0.5 + 0.3) / 2
        0.4
    """
    return mean_rows(mass, chosen_rows(attention, queries) & ~mass.isnan())


def pattern_share_score(
    attention: AttentionOperator, mass: Float[Tensor, "*batch head query"]
) -> Float[Tensor, "*batch head"]:
    """Return the share of all attention that falls on a detector's targets.

    ``sum A P / sum A`` with P the 0-1 pattern of the targets: the default score ("mul") of
    TransformerLens' `detect_head`. Queries without a target count as misses, so that its largest
    value depends on the text; `detector_score` leaves them out.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> round(float(pattern_share_score(A, previous_token_mass(A))), 4)  # 0.8 / 3
        0.2667
    """
    return mass.nansum(-1) / row_shares(attention, "pattern_share_score").nansum(-1)


def _tokens(
    attention: AttentionOperator, ids: Sequence[int], metric: str
) -> tuple[Int[Tensor, " key"], Int[Tensor, " query"]]:
    """Return a label from 0 for the token at each key, and the position of each query."""
    offset = require_positions(attention, metric)
    row_shares(attention, metric)
    if len(ids) != attention.keys:
        raise MetricError(
            f"{metric} has {len(ids)} token ids for the {attention.keys} keys of {attention!r}"
        )
    position = torch.arange(attention.queries) + offset
    if offset < 0 or int(position[-1]) >= attention.keys:
        raise MetricError(
            f"{metric} needs every query to stand at a key; the queries of {attention!r} stand at "
            f"{offset} to {int(position[-1])}"
        )
    return torch.as_tensor(list(ids)).unique(return_inverse=True)[1], position


def _where_matched(attention: AttentionOperator, mass: Tensor, matches: Tensor) -> Tensor:
    defined = attention.valid_queries & (matches > 0).to(mass.device)
    return torch.where(defined, mass, torch.nan)
