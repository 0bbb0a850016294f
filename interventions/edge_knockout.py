"""`EdgeKnockout`: let some queries no longer see some keys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from attnscope.attention import (
    AttentionOperator,
    IndexedAttention,
    ProductAttention,
    SoftmaxAttention,
)
from attnscope.interventions.changed_attention import ChangedAttention, choice_of_rows
from attnscope.interventions.head_scaling import head_numbers
from attnscope.interventions.places import Place
from attnscope.interventions.row_change import chosen_queries, pattern_rows, with_rows
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import Positions, Standing
from attnscope.probes.attention_call import AttentionCall

__all__ = ["EdgeKnockout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeKnockout:
    """Cuts the edges from some keys to some queries.

    Cut before the softmax (a score of -inf), what a row gave to these keys goes to the others in
    proportion; a row that has no others reads zeros. Cut after it (`renormalized=False`), it is
    lost, and the row sums to less.

    Attributes:
        queries: Who no longer sees: a segment (`response` is all that follows the prompt), or
            positions counted from a row's own first token.
        keys: What is no longer seen, in the same words.
        heads: In which heads, negative ones from the end; None for all.
        layers: In which layers; None for all.
        stack: Of which stack; by default of those that mix what the model speaks.
        renormalized: Whether rows sum to what they did.

    Reference: Geva et al. 2023, arXiv:2304.14767, attention knockout, for the cut before the
        softmax; the other is our option.
    """

    queries: str | Sequence[int]
    keys: str | Sequence[int]
    heads: Sequence[int] | None = None
    layers: Sequence[int] | None = None
    stack: str | None = None
    renormalized: bool = True

    def enter(self, seams: Seams) -> None:
        """Cut the edges in the layers named."""
        seams.attention(self._change, self.layers, self.stack)

    def _change(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        heads = head_numbers(self.heads, call, place)
        queries, keys = _positions(self.queries), _positions(self.keys)
        rows, hidden = standing.queries_in(queries), standing.keys_in(keys)
        touched = standing.known(
            ("cut", queries, keys), lambda: bool(rows.any()) and bool(hidden.any())
        )
        if not touched or not heads:
            return call
        chosen = torch.zeros(call.attention.heads, dtype=torch.bool, device=hidden.device)
        chosen[heads] = True
        cut = rows[:, None] & chosen[:, None]
        if not self.renormalized:
            return _cut_after(call, hidden, cut)
        if isinstance(call.attention, SoftmaxAttention):
            return _cut_before(call, call.attention, hidden, cut)
        name = f"{queries} to {keys}"
        own = chosen_queries(standing, name, lambda: rows)
        pattern = pattern_rows(call.attention, own)
        left = pattern.masked_fill(hidden[:, None, None], 0.0)
        mass = left.sum(-1, keepdim=True)
        left = torch.where(mass > 0, left * (pattern.sum(-1, keepdim=True) / mass), 0.0)
        return with_rows(call, own, left, cut[:, :, own.numbers], stochastic=True)


def _positions(what: str | Sequence[int]) -> Positions:
    return what if isinstance(what, str) else tuple(what)


def _cut_before(
    call: AttentionCall,
    attention: SoftmaxAttention,
    hidden: Bool[Tensor, "row key"],
    cut: Bool[Tensor, "row head query"],
) -> AttentionCall:
    """Return the call with a mask that hides the keys, in one fused call more."""
    known = attention.mask.key_valid
    seen = ~hidden if known is None else ~hidden & known
    after = SoftmaxAttention(
        attention.query,
        attention.key,
        attention.scale,
        mask=replace(attention.mask, key_valid=seen),
        bias=attention.bias,
        softcap=attention.softcap,
        sinks=attention.sinks,
        query_axis=attention.query_axis,
        key_axis=attention.key_axis,
    )
    return _merged(call, after, after.attend(call.value), cut, stochastic=attention.stochastic)


def _cut_after(
    call: AttentionCall, hidden: Bool[Tensor, "row key"], cut: Bool[Tensor, "row head query"]
) -> AttentionCall:
    """Return the call in which the values of the keys count for nothing."""
    attention = call.attention
    value = call.value.masked_fill(hidden[:, None, :, None], 0.0)
    value = value.repeat_interleave(attention.heads // value.shape[1], dim=1)
    weights = (~hidden).to(attention.dtype)[:, None, :, None]
    index = torch.arange(attention.keys, device=hidden.device)[:, None]
    kept = IndexedAttention(
        weights.expand(-1, attention.heads, -1, -1), index, attention.keys, offset=0
    )
    after = ProductAttention((attention, kept))
    return _merged(call, after, attention.apply(value), cut, stochastic=False)


def _merged(
    call: AttentionCall,
    after: AttentionOperator,
    output: Tensor,
    cut: Bool[Tensor, "row head query"],
    *,
    stochastic: bool,
) -> AttentionCall:
    before = call.attention
    merged = torch.where(cut.unsqueeze(-1), output.to(call.output.dtype), call.output)
    attention = ChangedAttention(
        before,
        lambda: choice_of_rows(before, after, cut, stochastic=stochastic),
        stochastic=stochastic,
    )
    return replace(call, output=merged, attention=attention)
