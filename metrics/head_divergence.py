"""How different heads are: the Jensen-Shannon divergence between the rows of two heads."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import Rows, chosen_rows, precise

__all__ = ["divergence_between", "divergence_of_heads"]

_HELD = 2**22
"""Entries of the rows that are held at once."""


def divergence_of_heads(
    attention: AttentionOperator, queries: Rows | None = None, most: int = 256
) -> Float[Tensor, "*batch head other_head"]:
    """Return the mean Jensen-Shannon divergence between the rows of each two heads, in nats.

    ``H((a + b) / 2) - (H(a) + H(b)) / 2`` for the rows a and b of one query in two heads: 0 where
    they are equal, ln 2 = 0.6931 where they share no key. The mean is taken over the queries that
    see a key in both heads; NaN where there is none.

    Args:
        attention: An operator whose rows are distributions.
        queries: Rows to average over; None for all.
        most: Of more rows than this, as many are taken at even steps.

    Raises:
        MetricError: Rows are not distributions; `normalized()` makes them so.

    Reference: Roy et al. 2021, arXiv:2003.05997, compares local and routing heads so; which rows
        are averaged is our reading.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 1.0]]]))
        >>> [round(float(x), 6) for x in divergence_of_heads(A)[0]]
        [0.0, 0.215762, 0.693147]
    """
    return divergence_between(attention, attention, queries, most)


def divergence_between(
    one: AttentionOperator, other: AttentionOperator, queries: Rows | None = None, most: int = 256
) -> Float[Tensor, "*batch head other_head"]:
    """Return the same between each head of one operator and each of another, over the same keys.

    Raises:
        MetricError: Rows are not distributions, or not of the same queries and keys.
    """
    if (one.shape[:-3], one.shape[-2:]) != (other.shape[:-3], other.shape[-2:]):
        raise MetricError(f"{one!r} and {other!r} do not map the same keys to the same queries")
    for operator in (one, other):
        if not operator.stochastic:
            raise MetricError(
                f"the divergence of heads needs rows that are distributions; those of {operator!r} "
                "are not (ask its normalized())"
            )
    defined = [chosen_rows(side, queries).expand(side.shape[:-1]) for side in (one, other)]
    both = defined[0].unsqueeze(-2) & defined[1].unsqueeze(-3)
    rows = _spread(both.flatten(0, -2).any(0).nonzero().squeeze(-1), most)
    per_row = (one.shape[:-2].numel() + other.shape[:-2].numel()) * one.keys
    total = precise(torch.zeros(both.shape[:-1], dtype=one.dtype, device=one.device))
    for block in rows.split(max(1, _HELD // max(1, per_row))):
        divergence = _divergences(precise(one.rows(block)), precise(other.rows(block)))
        total = total + divergence.masked_fill(~both[..., block], 0.0).sum(-1)
    return (total / both[..., rows].sum(-1)).clamp_min(0.0)


def _divergences(
    one: Float[Tensor, "*batch head query key"], other: Float[Tensor, "*batch other_head query key"]
) -> Float[Tensor, "*batch head other_head query"]:
    """Return the divergences of some rows, one head after the other."""
    mixed = [_entropy((rows.unsqueeze(-3) + other) / 2) for rows in one.unbind(-3)]
    mean = (_entropy(one).unsqueeze(-2) + _entropy(other).unsqueeze(-3)) / 2
    return torch.stack(mixed, dim=-3) - mean


def _entropy(rows: Float[Tensor, "*axes key"]) -> Float[Tensor, "*axes"]:
    return torch.special.entr(rows).sum(-1)


def _spread(rows: Int[Tensor, " row"], most: int) -> Int[Tensor, " some_row"]:
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).round().long()]
