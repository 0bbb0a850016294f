"""`head_span`: how far back a head looks on average, which tells local heads from global ones."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator, key_position
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import (
    Rows,
    backward_shares,
    chosen_rows,
    mean_rows,
    precise,
    require_positions,
)

__all__ = ["head_span", "look_back"]


def head_span(
    attention: AttentionOperator, queries: Rows | None = None, *, drop: Sequence[int] = ()
) -> Float[Tensor, "*batch head"]:
    """Return the span of each head: the mean over queries of the mean look-back distance.

    ``d = 1/|R| sum_{t in R} sum_{s <= t} A_ts (t - s)``, R being the queries and s running over all
    keys, the prompt included. 0 for a head that reads each token at its own place; a head that
    puts everything on the first token spans the mean position of R. Queries that see no key, or
    read ahead of themselves, are left out; a head without any other reads NaN.

    Args:
        attention: Attention along one sequence whose rows are distributions, or parts of one.
        queries: Rows to average over, usually the response; by default all.
        drop: Keys to leave out, the rest of each row being rescaled to 1. `drop=(0,)` keeps an
            attention sink on the first token from passing for a long span (our option: the paper
            counts the sink). Queries that read nothing else are left out.

    Raises:
        MetricError: The attention is no distribution along one sequence, or looks ahead throughout.

    Reference: Li et al. 2025, arXiv:2510.13554, section 4.1 and equation 7. With all queries it is
        the causal one-dimensional form of the mean attention distance of vision transformers.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> round(float(head_span(A, queries=[1, 2])), 4)  # (0.5 * 1 + 0.2 * 2 + 0.3 * 1) / 2
        0.6
        >>> round(float(head_span(A, queries=[1, 2], drop=[0])), 4)  # (0 + 0.3 / 0.8) / 2
        0.1875
    """
    rows = chosen_rows(attention, queries)
    distance = look_back(attention) if len(drop) == 0 else _look_back_without(attention, drop)
    return mean_rows(distance, rows & ~distance.isnan())


def look_back(attention: AttentionOperator) -> Float[Tensor, "*batch head query"]:
    """Return the mean distance at which each query reads, ``sum_{s <= t} A_ts (t - s)``.

    The query's position less the mean attended position, which an operator may have averaged beside
    the model's own values. NaN for a query that sees no key, and for one that reads ahead.

    Raises:
        MetricError: The attention is no distribution along one sequence, or looks ahead throughout.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> [round(float(x), 4) for x in look_back(A)[0]]
        [0.0, 0.5, 0.7]
    """
    offset = require_positions(attention, "head_span")
    mass = backward_shares(attention, "head_span")
    mean_key = precise(attention.key_moment(key_position))
    return (_positions(attention, offset, mass) * mass - mean_key).clamp_min(0)


def _look_back_without(
    attention: AttentionOperator, drop: Sequence[int]
) -> Float[Tensor, "*batch head query"]:
    """Return the same over the keys that stay, NaN for a query that reads none of them."""
    offset = require_positions(attention, "head_span")
    share = backward_shares(attention, "head_span")
    keep = torch.ones(attention.keys, dtype=torch.float64)
    try:
        keep[torch.as_tensor(list(drop))] = 0
    except IndexError as error:
        raise MetricError(
            f"head_span drop={list(drop)} reaches outside {attention!r}: its keys go from 0 to "
            f"{attention.keys - 1}"
        ) from error
    # Dropped keys get the value 0: taking them off afterwards would cancel where they hold all.
    columns = torch.stack([keep, torch.arange(attention.keys) * keep], dim=-1)
    shared = columns.to(attention.device, attention.dtype).expand(*attention.shape[:-3], 1, -1, -1)
    mass, moment = precise(attention.apply(shared)).unbind(-1)
    distance = _positions(attention, offset, mass) - moment / mass
    return torch.where((mass > 0) & ~share.isnan(), distance.clamp_min(0), torch.nan)


def _positions(attention: AttentionOperator, offset: int, like: Tensor) -> Tensor:
    return torch.arange(attention.queries, device=like.device, dtype=like.dtype) + offset
