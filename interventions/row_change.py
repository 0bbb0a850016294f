"""Rows of a running model's attention: read them before or after the softmax, put others there.

Few rows are touched: one while a model generates, those that a method names in a prompt. The whole
map is never built.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention import TILE_LIMIT, AttentionOperator, SoftmaxAttention
from attnscope.interventions.changed_attention import (
    ChangedAttention,
    choice_of_rows,
    sparse_rows,
)
from attnscope.interventions.errors import InterventionError
from attnscope.interventions.standing import Standing
from attnscope.probes.attention_call import AttentionCall

__all__ = ["ChosenQueries", "chosen_queries", "pattern_rows", "read", "score_rows", "with_rows"]

_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True, eq=False)
class ChosenQueries:
    """The queries of a call that a method touches.

    Attributes:
        numbers: Those that it touches in some row of the batch.
        mask: In which rows it touches each of them, `(row, chosen)`.
        all_rows: Whether that is in all of them.
        of: How many queries the call has.
    """

    numbers: list[int]
    mask: Bool[Tensor, "row chosen"]
    all_rows: bool
    of: int

    @property
    def index(self) -> list[int] | slice:
        """Return what picks these queries out of an axis, without a copy where all are chosen."""
        return slice(None) if len(self.numbers) == self.of else self.numbers


def chosen_queries(
    standing: Standing, name: str, mask: Callable[[], Bool[Tensor, "row query"]]
) -> ChosenQueries:
    """Return the chosen queries of a call, worked out once for all layers of a forward pass.

    Args:
        standing: Where the queries stand.
        name: What the choice is called.
        mask: Which queries it takes.
    """

    def make() -> ChosenQueries:
        chosen = mask()
        numbers = chosen.any(0).nonzero().flatten().tolist()
        own = chosen[:, numbers]
        return ChosenQueries(numbers, own, bool(own.all()), chosen.shape[1])

    return standing.known(("chosen", name), make)


def score_rows(
    attention: SoftmaxAttention, chosen: ChosenQueries, span: slice | None = None
) -> Float[Tensor, "row head chosen key"]:
    """Return rows before the softmax, in float32 at least, -inf where a key is hidden.

    Args:
        attention: The operator.
        chosen: Whose rows.
        span: Which run of keys, whose few products are taken in float32 too; None for all keys.
    """
    query, key = attention.query[:, :, chosen.index], attention.key
    dtype = torch.promote_types(query.dtype, torch.float32)
    if span is None:
        span = slice(0, attention.keys)
    else:
        query, key = query.to(dtype), key[:, :, span].to(dtype)
    scores = _grouped(query, key.mT).to(dtype) * attention.scale
    if attention.softcap is not None:
        scores = torch.tanh(scores / attention.softcap) * attention.softcap
    mask, bias = attention.mask, attention.bias
    low, high = chosen.numbers[0], chosen.numbers[-1] + 1
    if bias is None and mask.leaves_open(slice(low, high), span):
        return scores
    queries = torch.tensor(chosen.numbers, device=scores.device)[:, None]
    keys = torch.arange(span.start, span.stop, device=scores.device)[None, :]
    if bias is not None:
        scores = scores + bias.at(queries, keys).to(dtype)
    visible = mask.visible(queries, keys)
    return scores.masked_fill(~(visible if visible.ndim == 2 else visible[:, None]), -torch.inf)


def pattern_rows(
    attention: AttentionOperator, chosen: ChosenQueries, span: slice | None = None
) -> Float[Tensor, "row head chosen key"]:
    """Return rows after the softmax; `span` is the run of keys that is wanted, None for all."""
    if span is None:
        _check_size(attention, chosen)
    if not isinstance(attention, SoftmaxAttention):
        return attention.tile(chosen.numbers, slice(None) if span is None else span)
    normalizer = attention.log_normalizer()[..., chosen.index].unsqueeze(-1)
    # a row without keys has -inf there, and -inf less -inf would be no number
    return (score_rows(attention, chosen, span) - normalizer.clamp_min(_LOWEST)).exp()


def read(
    rows: Float[Tensor, "row head chosen key"], value: Float[Tensor, "row kv_head key dim"]
) -> Float[Tensor, "row head chosen dim"]:
    """Return what rows read of the values, which heads may share."""
    return _grouped(rows.to(value.dtype), value)


def with_rows(
    call: AttentionCall,
    chosen: ChosenQueries,
    rows: Float[Tensor, "row head chosen key"],
    changed: Bool[Tensor, "row #head chosen"] | None = None,
    *,
    stochastic: bool,
) -> AttentionCall:
    """Return a call some rows of whose map are others; everything else is as it was, to the bit.

    Args:
        call: The call.
        chosen: Which queries the rows belong to.
        rows: The rows, after the softmax.
        changed: In which heads they differ from those before; by default in all.
        stochastic: Whether they are distributions.
    """
    mine = chosen.mask[:, None]
    if changed is not None:
        mine = changed if chosen.all_rows else changed & mine
    new = read(rows, call.value).to(call.output.dtype)
    if changed is not None or not chosen.all_rows:
        new = torch.where(mine.unsqueeze(-1), new, call.output[:, :, chosen.index])
    if len(chosen.numbers) == chosen.of:
        output = new
    else:
        output = call.output.clone()
        output[:, :, chosen.numbers] = new
    before = call.attention

    def make() -> AttentionOperator:
        whole = torch.zeros(before.shape[:-1], dtype=torch.bool, device=rows.device)
        whole[:, :, chosen.numbers] = mine.expand(*before.shape[:2], -1)
        after = sparse_rows(rows.to(before.dtype), chosen.numbers, chosen.of)
        return choice_of_rows(before, after, whole, stochastic=stochastic and before.stochastic)

    attention = ChangedAttention(before, make, stochastic=stochastic and before.stochastic)
    return replace(call, output=output, attention=attention)


def _grouped(left: Tensor, right: Tensor) -> Tensor:
    """Return products in which several heads of the left share one of the right."""
    rows, heads, count, inner = left.shape
    stacked = left.reshape(rows, right.shape[1], heads // right.shape[1] * count, inner)
    return (stacked @ right).view(rows, heads, count, right.shape[-1])


def _check_size(attention: AttentionOperator, chosen: ChosenQueries) -> None:
    entries = attention.shape[0] * attention.heads * len(chosen.numbers) * attention.keys
    if entries > TILE_LIMIT:
        raise InterventionError(
            f"{len(chosen.numbers)} rows of {attention.heads} heads over {attention.keys} keys are "
            f"to be changed in one pass, {entries:,} entries; {TILE_LIMIT:,} may be held. Let the "
            "model generate token by token, or give it less at a time"
        )
