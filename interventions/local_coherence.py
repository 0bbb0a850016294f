"""`LocoRE`: local coherence reinforcement, more attention to the words that were just said."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention import (
    AttentionOperator,
    IndexedAttention,
    RowScaledAttention,
    SumAttention,
)
from attnscope.interventions.changed_attention import ChangedAttention
from attnscope.interventions.places import Layers, Place
from attnscope.interventions.row_change import chosen_queries, pattern_rows, read
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import RESPONSE, Standing
from attnscope.probes.attention_call import AttentionCall

__all__ = [
    "LocoRE",
    "Normalization",
    "post_softmax_raw",
    "post_softmax_renorm",
    "pre_softmax_log",
    "recent_gain",
]

Normalization = Callable[[Tensor, Tensor], Tensor]
"""Takes what each row summed to and what was added, and returns what to divide the row by."""


def post_softmax_raw(mass: Tensor, added: Tensor) -> Tensor:
    """Return 1: the row sums to more than it did, as the paper's equation 9 is printed.

    Example:
        >>> float(post_softmax_raw(torch.tensor(1.0), torch.tensor(0.25)))
        1.0
    """
    return torch.ones_like(added)


def post_softmax_renorm(mass: Tensor, added: Tensor) -> Tensor:
    """Return `(mass + added) / mass`: the row sums to what it did (our reading of the text).

    Example:
        >>> float(post_softmax_renorm(torch.tensor(0.5), torch.tensor(0.25)))
        1.5
    """
    return torch.where(mass > 0, (mass + added) / mass, 1.0)


def pre_softmax_log(mass: Tensor, added: Tensor) -> Tensor:
    """Return `1 + added`: log gains on the scores, of which the softmax is taken (our reading).

    A row that sums to 1 is as with `post_softmax_renorm`; a learned sink competes with the gains.

    Example:
        >>> float(pre_softmax_log(torch.tensor(0.5), torch.tensor(0.25)))
        1.25
    """
    return 1 + added


def recent_gain(
    rows: Float[Tensor, "*axes key"],
    boosted: Bool[Tensor, "*#axes key"],
    beta: float,
    normalize: Normalization = post_softmax_raw,
) -> Float[Tensor, "*axes key"]:
    """Return rows with the boosted keys multiplied by `1 + beta`.

    Reference: arXiv:2601.20279, equations 8 to 10.

    Example:
        >>> rows = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.2])
        >>> boosted = torch.tensor([False, False, True, True, False])
        >>> [round(x, 4) for x in recent_gain(rows, boosted, 0.15).tolist()]
        [0.4, 0.2, 0.115, 0.115, 0.2]
    """
    more = rows * boosted * beta
    return (rows + more) / normalize(rows.sum(-1), more.sum(-1)).unsqueeze(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocoRE:
    """Raises what each query gives to the words of the response just before it, in all heads.

    The query at position P multiplies its attention to the keys `j` of the response with
    `1 <= P - j <= window` by `1 + beta`. Its own key is left out, as printed.

    Attributes:
        beta: 0.15 for LLaVA-1.5 and 0.20 for Qwen2-VL (table 3; the prose's 1.2 contradicts it).
            0 leaves the model as it is.
        window: `w_s`; no value was published, and 5 is ours.
        normalize: What becomes of the row's sum: `post_softmax_raw` as printed,
            `post_softmax_renorm` or `pre_softmax_log`.
        counts_prompt: Take all tokens after the image for the response, the question too, as the
            paper's J does; by default the response alone (our reading of what is meant).
        layers: Which layers; the paper names no restriction.

    Reference: arXiv:2601.20279, equations 8 to 10 and algorithm 2.
    """

    beta: float = 0.15
    window: int = 5
    normalize: Normalization = post_softmax_raw
    counts_prompt: bool = False
    layers: Layers = None

    def enter(self, seams: Seams) -> None:
        """Raise recent words in the layers named."""
        if self.beta == 0 or self.window < 1:
            return
        if self.counts_prompt:
            seams.require_image("LocoRE with counts_prompt")
        seams.sequences()
        seams.attention(self._change, self.layers)

    def _change(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        recent = standing.known(("LocoRE", id(self)), lambda: self._recent(standing))
        if recent is None:
            return call
        attention, table = call.attention, recent.table
        if recent.span is not None:
            one = chosen_queries(standing, "predicting", standing.predicting)
            weights = pattern_rows(attention, one, recent.span) * recent.gains
            more = read(weights, call.value[:, :, recent.span])
        else:
            weights = attention.band(self.window + 1)[..., 1:] * recent.gains
            more = _read_band(weights, call.value, table)
        divisor = self._divisor(attention, weights)
        output = call.output + more.to(call.output.dtype)
        if divisor is not None:
            output = output / divisor.unsqueeze(-1).to(output.dtype)
        return replace(call, output=output, attention=_boosted(attention, weights, table, divisor))

    def _recent(self, standing: Standing) -> "_Recent | None":
        """Return the recent keys of all queries; None where there are none to raise."""
        own, span = standing.first_query - standing.first_key, None
        if standing.queries == 1:
            span = slice(max(0, own - self.window), own)
            table = torch.arange(span.start, span.stop, device=standing.device)[None]
        else:
            queries = torch.arange(standing.queries, device=standing.device)[:, None] + own
            table = queries - torch.arange(1, self.window + 1, device=standing.device)
        said = standing.keys_after("image") if self.counts_prompt else standing.keys_in(RESPONSE)
        inside = (table >= 0) & (table < standing.keys)
        boosted = said[:, table.clamp(0, standing.keys - 1)] & inside
        boosted = boosted & standing.predicting()[..., None]
        if not bool(boosted.any()):
            return None
        return _Recent(table.masked_fill(~inside, -1), (boosted * self.beta)[:, None], span)

    def _divisor(self, attention: AttentionOperator, weights: Tensor) -> Tensor | None:
        if self.normalize is post_softmax_raw:
            return None
        added = weights.sum(-1)
        mass = torch.ones_like(added) if attention.stochastic else attention.row_mass()
        return self.normalize(mass, added)


@dataclass(frozen=True, slots=True, eq=False)
class _Recent:
    """The recent keys of the queries of one call.

    Attributes:
        table: Their numbers, `(query, slot)`, -1 where there is none.
        gains: `beta`, or 0 for keys that are none of the response, `(row, 1, query, slot)`.
        span: Them as a run of keys, where there is one query.
    """

    table: Tensor
    gains: Tensor
    span: slice | None


def _read_band(weights: Tensor, value: Tensor, table: Tensor) -> Tensor:
    """Return what each query reads of its recent keys, one distance after the other."""
    group = weights.shape[1] // value.shape[1]
    total: Any = 0
    for slot in range(table.shape[1]):
        shifted = value[:, :, table[:, slot].clamp_min(0)].repeat_interleave(group, dim=1)
        total = total + weights[..., slot].unsqueeze(-1).to(value.dtype) * shifted
    return total


def _boosted(
    before: AttentionOperator, weights: Tensor, table: Tensor, divisor: Tensor | None
) -> ChangedAttention:
    """Return the operator with the gains added, and each row divided."""

    def make() -> AttentionOperator:
        own = weights.masked_fill(table < 0, 0.0).to(before.dtype)
        more = IndexedAttention(own, table, before.keys, offset=before.offset)
        total = SumAttention((before, more))
        if divisor is None:
            return total
        return RowScaledAttention(total, 1 / divisor, stochastic=before.stochastic)

    return ChangedAttention(before, make, stochastic=divisor is not None and before.stochastic)
