"""`reduce`: a smaller trace, whose card names what it lost."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from attnscope.attention import (
    AttentionOperator,
    OperatorError,
    TruncatedAttention,
    rounded,
)
from attnscope.traces.card import Card
from attnscope.traces.errors import TraceError
from attnscope.traces.layer_numbers import layer_runs
from attnscope.traces.site import Observation
from attnscope.traces.site_facts import SiteCard, site_card
from attnscope.traces.stored_reading import StoredReading
from attnscope.traces.trace import Trace

__all__ = ["reduce"]

_SAMPLED_ROWS = 16
_VERIFIED = "the verification is of the trace before it was reduced"


def reduce(  # noqa: PLR0913 - the public door
    trace: Trace,
    *,
    top_k: int | None = None,
    layers: int | Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    dtype: Literal["bfloat16", "float16"] | None = None,
    readings: Iterable[Any] = (),
    readings_only: bool = False,
) -> Trace:
    """Return a smaller trace of the same run.

    What is kept is what it was: layers keep their numbers, tokens, segments and numbers per token
    stay. What is lost stands on the card, and metrics that would need it refuse.

    Args:
        trace: The trace.
        top_k: Keep this many weights of each row, the largest, and exactly how much the others
            were together; computed by blocks of rows. Metrics of such rows refuse, bounds are
            known (`TruncatedAttention`).
        layers: Keep these layers, of each stack that has them; negative ones from the end.
        heads: Keep these heads of every layer, under new numbers; the card knows the old ones.
        dtype: Round factors, values, gradients and hidden states to this type. The largest error
            of a weight on sampled rows is measured, and stands on the card.
        readings: Readings (as `measure` returns them) to keep with the trace.
        readings_only: Keep no attention at all.

    Raises:
        TraceError: There is no such layer or head, nothing was asked for, or a trace of readings
            only would hold none.
    """
    asked = (top_k, layers, heads, dtype, readings_only or None)
    kept_readings = _with_readings(trace, readings)
    if all(option is None for option in asked) and len(kept_readings) == len(trace.readings):
        raise TraceError("nothing to reduce by: give top_k, layers, heads, dtype or readings")
    chosen = trace if layers is None else trace.select(layers)
    lost = [*trace.card.lost, *_lost_layers(trace, chosen)]
    if readings_only:
        if not kept_readings:
            raise TraceError("a trace of readings only would be empty: give readings to keep")
        lost.append("all attention; readings, tokens and numbers per token are left")
        card = replace(chosen.card, lost=_once(lost, trace))
        return replace(chosen, observations=[], readings=kept_readings, card=card)
    reduced = [_reduced(one, chosen, top_k, heads, _type(dtype)) for one in chosen.observations]
    sites = {(one.site.stack, one.site.layer): card for one, card in reduced}
    card = Card(sites=sites, verification=trace.card.verification, lost=_once(lost, trace))
    observations = [one for one, _ in reduced]
    return replace(chosen, observations=observations, readings=kept_readings, card=card)


def _with_readings(trace: Trace, readings: Iterable[Any]) -> dict[str, StoredReading]:
    return {**trace.readings, **{one.name: StoredReading.of(one) for one in readings}}


def _type(dtype: str | None) -> torch.dtype | None:
    types = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in types:
        raise TraceError(f"no dtype {dtype!r}; a trace is reduced to bfloat16 or float16")
    return types[dtype]


def _lost_layers(trace: Trace, chosen: Trace) -> list[str]:
    kept, lost = set(chosen.sites), []
    for stack in trace.stacks:
        gone = [s.layer for s in trace.sites if s.stack == stack and s not in kept]
        if gone:
            lost.append(f"layers {layer_runs(gone)} of {stack}")
    return lost


def _once(lost: Sequence[str], trace: Trace) -> tuple[str, ...]:
    """Return what was lost, and that nobody verified what is left."""
    noted = [_VERIFIED] if trace.card.verification is not None else []
    return tuple(dict.fromkeys([*lost, *noted]))


def _reduced(
    observation: Observation,
    trace: Trace,
    top_k: int | None,
    heads: Sequence[int] | None,
    dtype: torch.dtype | None,
) -> tuple[Observation, SiteCard]:
    """Return one site after every step that was asked for, and its card."""
    site = observation.site
    card = trace.card.sites.get((site.stack, site.layer)) or site_card(observation.attention)
    try:
        if heads is not None:
            observation, card = _of_heads(observation, card, heads)
        if top_k is not None:
            observation, card = _largest(observation, card, top_k)
        if dtype is not None:
            observation, card = _narrowed(observation, card, dtype)
    except OperatorError as error:
        raise TraceError(f"{site.path} cannot be reduced: {error}") from error
    return observation, card


def _of_heads(
    observation: Observation, card: SiteCard, heads: Sequence[int]
) -> tuple[Observation, SiteCard]:
    attention = observation.attention
    count = attention.heads
    if not len(heads) or not all(-count <= head < count for head in heads):
        raise TraceError(f"heads {list(heads)}: {observation.site.path} has {count}, from 0")
    chosen = [head % count for head in heads]
    before = card.heads or tuple(range(count))
    value, gradient = observation.value, observation.gradient
    if value is not None:
        group = count // value.shape[0]
        value = value[[head // group for head in chosen]]
    kept = replace(
        observation,
        attention=attention.select_heads(chosen),
        value=value,
        gradient=None if gradient is None else gradient[chosen],
    )
    return kept, replace(card, heads=tuple(before[head] for head in chosen))


def _largest(observation: Observation, card: SiteCard, count: int) -> tuple[Observation, SiteCard]:
    truncated = TruncatedAttention.of(observation.attention, count)
    most, mean = float(truncated.lost.max()), float(truncated.lost.mean())
    loss = (
        f"all but the {count} largest weights of each row (at most {most:.2g} of a row, "
        f"{mean:.2g} on average)"
    )
    card = replace(
        card,
        operator=type(truncated).__name__,
        lost=(*card.lost, loss) if truncated.partial else card.lost,
    )
    return replace(observation, attention=truncated), card


def _narrowed(
    observation: Observation, card: SiteCard, dtype: torch.dtype
) -> tuple[Observation, SiteCard]:
    narrow = rounded(observation.attention, dtype)
    error, rows = _error(observation.attention, narrow)
    name = str(dtype).removeprefix("torch.")
    loss = f"precision: {name} factors, weights off by at most {error:.2g} on {rows} sampled rows"
    fields = ("value", "gradient", "hidden")
    cast: dict[str, Tensor | None] = {
        field: None if (held := getattr(observation, field)) is None else held.to(dtype)
        for field in fields
    }
    kept = replace(observation, attention=narrow, **cast)
    return kept, replace(card, dtype=name, lost=(*card.lost, loss))


def _error(whole: AttentionOperator, narrow: AttentionOperator) -> tuple[float, int]:
    """Return the largest difference of a weight on evenly spaced rows, and how many they are."""
    rows = torch.linspace(0, whole.queries - 1, _SAMPLED_ROWS).long().unique()
    difference = whole.rows(rows).double() - narrow.rows(rows).double()
    return float(difference.abs().max()) if difference.numel() else 0.0, len(rows)
