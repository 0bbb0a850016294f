"""Credit of tokens that is read off the attention of one captured run."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.metrics import (
    attention_rollout,
    gradient_rollout,
    positive_gradient,
    saliency_rows,
    trace_relevance,
)
from attnscope.probes.errors import CaptureError
from attnscope.probes.presence import TokenPresence
from attnscope.probes.recorder import capture
from attnscope.traces import Observation, Trace

__all__ = [
    "attention_credit",
    "gradient_rollout_credit",
    "relevance_credit",
    "rollout_credit",
    "saliency_credit",
]


def attention_credit(
    presence: TokenPresence, *, query: int | None = None
) -> Float[Tensor, " token"]:
    """Return the attention of the target's query to each token, mean over layers and heads."""
    return _mean_row(
        presence, query, lambda seen, row: seen.attention.rows([row]).float(), gradient=False
    )


def saliency_credit(
    presence: TokenPresence, *, query: int | None = None
) -> Float[Tensor, " token"]:
    """Return `|A dL/dA|` of the target's query, mean over layers and heads."""

    def row_of(seen: Observation, row: int) -> Tensor:
        if seen.value is None or seen.gradient is None:
            raise CaptureError(f"no gradient was captured at {seen.site.path}")
        return saliency_rows(seen.attention, seen.value, seen.gradient, [row])

    return _mean_row(presence, query, row_of, gradient=True)


def rollout_credit(presence: TokenPresence, *, query: int | None = None) -> Float[Tensor, " token"]:
    """Return the attention rollout of the target's query."""
    trace, row = _captured(presence, query, gradient=False)
    layers = [seen.attention for seen in _own_sites(trace, presence, "rollout")]
    return attention_rollout(layers, row)


def gradient_rollout_credit(
    presence: TokenPresence, *, query: int | None = None
) -> Float[Tensor, " token"]:
    """Return the rollout of the positive gradients of the target's query."""
    trace, row = _captured(presence, query, gradient=True)
    layers = [
        positive_gradient(seen.attention, seen.value, seen.gradient)
        for seen in _own_sites(trace, presence, "gradient_rollout")
        if seen.value is not None and seen.gradient is not None
    ]
    return gradient_rollout(layers, row)


def relevance_credit(
    presence: TokenPresence, *, query: int | None = None
) -> Float[Tensor, " token"]:
    """Return Chefer's relevance of each token to the target's query."""
    trace, row = _captured(presence, query, gradient=True)
    readings = trace_relevance(trace, row)
    if presence.sequence.name not in readings:
        raise CaptureError(
            f"relevance reaches {sorted(readings)} in this model, not {presence.sequence.name!r}"
        )
    return readings[presence.sequence.name].values


def _captured(presence: TokenPresence, query: int | None, *, gradient: bool) -> tuple[Trace, int]:
    """Return a trace of the run, and the row at which the target is read."""
    target = presence.target if gradient else None
    trace = capture(presence.subject, presence.encoded, gradient=target)
    if query is not None:
        return trace, query
    position = getattr(presence.target, "position", None)
    if position is None or trace.log_probabilities is None:
        raise CaptureError(
            f"say which query the target {presence.target.name!r} is read at: query=0 for the "
            "class token of a classifier, or the position that predicts"
        )
    return trace, position


def _own_sites(trace: Trace, presence: TokenPresence, method: str) -> list[Observation]:
    """Return the layers in which the main sequence attends to itself."""
    if presence.sequence.name != trace.main_sequence:
        raise CaptureError(
            f"{method} follows one sequence through its own attention; the target is read in "
            f"{trace.main_sequence!r}, the tokens asked about are {presence.sequence.name!r} "
            "(relevance follows both)"
        )
    return [seen for seen in trace.observations if seen.site.reads_itself(trace.main_sequence)]


def _mean_row(
    presence: TokenPresence,
    query: int | None,
    row_of: Callable[[Observation, int], Tensor],
    *,
    gradient: bool,
) -> Float[Tensor, " token"]:
    """Return the mean over layers and heads of one row, of the sites that read the sequence."""
    trace, row = _captured(presence, query, gradient=gradient)
    sites: Sequence[Observation] = [
        seen
        for seen in trace.observations
        if (seen.site.query_sequence, seen.site.key_sequence)
        == (trace.main_sequence, presence.sequence.name)
    ]
    if not sites:
        raise CaptureError(
            f"no attention reads {presence.sequence.name!r} from {trace.main_sequence!r}"
        )
    return torch.stack([row_of(seen, row).mean((0, 1)) for seen in sites]).mean(0)
