"""`trace_readings`: the readings of responses that were captured, without their policy.

A trace holds the factors of the attention that the policy had, so that credit can be given, and
looked at, long after the run.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator, SoftmaxAttention
from attnscope.credit.aligned_sequences import aligned_chunks
from attnscope.credit.assembly import assembled
from attnscope.credit.errors import CreditError
from attnscope.credit.head_calibration import HeadCalibration
from attnscope.credit.head_recorder import HeadRecorder, SpanMean, mean_spans, recorder_for
from attnscope.credit.layout import Stretch
from attnscope.credit.preset import Preset
from attnscope.credit.reading_plan import ReadingPlan
from attnscope.credit.readings import Readings
from attnscope.credit.token_batch import TokenBatch, padded_batch
from attnscope.credit.token_facts import TokenFacts
from attnscope.traces import Site, Trace

__all__ = ["calibrate_traces", "trace_readings"]


def trace_readings(
    traces: Sequence[Trace],
    plan: ReadingPlan,
    *,
    mean: SpanMean = mean_spans,
    advantage: Float[Tensor, " batch"] | Float[Tensor, "batch response"] | None = None,
    draw: int = 0,
) -> Readings:
    """Return the readings of a batch of captured responses, one per trace.

    The same numbers as `read_responses` of the policy that they were captured of, up to rounding:
    a trace's rows are its tokens, and the columns of a reading those of its `response` segment.
    Where a preset names no layers, the middle third is taken of the layers that the traces hold.
    The entropy after a trace's last token is not stored, and reads NaN.

    Args:
        traces: Traces of one model.
        plan: What to read.
        mean: How head spans are averaged where heads are ranked by this batch.
        advantage: Advantages of the responses, for rules that look at their sign.
        draw: Number of the batch, for rules that draw at random.

    Raises:
        CreditError: A trace has no response, holds none of the plan's layers, or of another model;
            its attention is not causal softmax; or it lacks what the plan needs.
    """
    _require_stored(traces, plan)
    batch = _batch_of(traces)
    recorder = _recorded(traces, batch, plan)
    found, _ = recorder.finish(mean)
    facts = {
        number: _facts_of(trace, stretch)
        for number, (trace, stretch) in enumerate(zip(traces, batch.layout.stretches, strict=True))
        if plan.wants_tokens
    }
    return assembled(batch, plan, found, facts, advantage, draw)


def calibrate_traces(traces: Sequence[Trace], preset: Preset) -> HeadCalibration:
    """Return which heads look back least and furthest in captured responses, as `calibrate` does.

    Args:
        traces: Traces of one model.
        preset: Layers, quantile and grouping.

    Raises:
        CreditError: As for `trace_readings`.
    """
    plan = ReadingPlan(needs=frozenset({"spans"}), preset=preset)
    _, calibration = _recorded(traces, _batch_of(traces), plan).finish(mean_spans)
    if calibration is None:
        raise CreditError("no head has a span in these responses: there is nothing to rank by")
    return calibration


def _require_stored(traces: Sequence[Trace], plan: ReadingPlan) -> None:
    """Refuse a plan that asks for what a trace of the policy cannot hold."""
    if "received" in plan.needs:
        raise CreditError(
            "received is the attention of a reward model, of which a policy's trace knows nothing; "
            "put it into the readings: dataclasses.replace(readings, received=...)"
        )
    for number, trace in enumerate(traces):
        lacking = [
            need
            for need, vector in (
                ("entropy", trace.entropies),
                ("log_probability", trace.log_probabilities),
            )
            if need in plan.needs and vector is None
        ]
        if "ids" in plan.needs and trace.sequences[trace.main_sequence].ids is None:
            lacking.append("ids")
        if lacking:
            raise CreditError(f"trace {number} was captured without {', '.join(lacking)}")


def _batch_of(traces: Sequence[Trace]) -> TokenBatch:
    """Return the tokens of traces, filled up on the right; ids are -1 where they are not known."""
    if not traces:
        raise CreditError("there is no trace to read")
    shape = len(traces), max(len(trace.tokens) for trace in traces)
    ids = torch.full(shape, -1, dtype=torch.long)
    attended, own = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, trace in enumerate(traces):
        if "response" not in trace.segments:
            raise CreditError(
                f"trace {row} has no response segment; it has {list(trace.segments.names)}. "
                "Capture an answered prompt: subject.generate(...), or text and response"
            )
        known = trace.sequences[trace.main_sequence].ids
        if known is not None:
            ids[row, : len(known)] = torch.tensor(known)
        attended[row, : len(trace.tokens)] = True
        own[row, trace.segments["response"]] = True
    return padded_batch(ids, attended, own)


def _recorded(traces: Sequence[Trace], batch: TokenBatch, plan: ReadingPlan) -> HeadRecorder:
    """Return the recorder of a plan after it has met every layer of every trace."""
    sizes = batch.layout.mask.shape[0], batch.layout.mask.shape[1]
    if not plan.wants_heads:
        return recorder_for(plan, (), sizes)
    sites = [_sites_of(number, trace) for number, trace in enumerate(traces)]
    _require_alike(traces, sites)
    layers = plan.layers_among(tuple(sites[0]))
    recorder = recorder_for(plan, layers, sizes)
    for number, (trace, stretch) in enumerate(zip(traces, batch.layout.stretches, strict=True)):
        here = (number, batch.layout.shape[1], sizes[1])
        (chunk,) = aligned_chunks([(number, stretch)], here, 1)
        for place, layer in enumerate(layers):
            site = sites[number][layer]
            attention = _with_batch(trace.attention[site.stack, layer], site, number)
            recorder.meet(attention.heads, attention.device)
            recorder.take(place, chunk.to(attention.device), attention)
    return recorder


def _sites_of(number: int, trace: Trace) -> dict[int, Site]:
    """Return the sites at which the response reads its own sequence, by layer."""
    sites = (site for site in trace.sites if site.stack == trace.main_stack)
    own = {site.layer: site for site in sites if site.reads_itself(trace.main_sequence)}
    if not own:
        raise CreditError(f"trace {number} holds no attention of its tokens on each other")
    return dict(sorted(own.items()))


def _require_alike(traces: Sequence[Trace], sites: Sequence[dict[int, Site]]) -> None:
    """Refuse traces of different models, or of different layers of one."""
    for number, own in enumerate(sites):
        if tuple(own) != tuple(sites[0]):
            raise CreditError(
                f"trace 0 holds the layers {list(sites[0])}, trace {number} {list(own)}; heads are "
                "ranked over all of them, so that they have to hold the same"
            )
    heads = [_heads_of(trace) for trace in traces]
    if len(set(heads)) > 1:
        raise CreditError(f"the traces have {heads} heads per layer: they are of different models")


def _heads_of(trace: Trace) -> int:
    stack = trace.main_stack
    return next(own.shape[0] for own in trace.observed.summaries if own.site.stack == stack)


def _with_batch(attention: AttentionOperator, site: Site, number: int) -> SoftmaxAttention:
    """Return a stored operator with a batch axis of one, as recorders take it."""
    if not (isinstance(attention, SoftmaxAttention) and attention.causal):
        causal = "" if attention.causal else ", not causal"
        raise CreditError(
            f"{site.path} of trace {number} is {type(attention).__name__}{causal}; credit reads "
            "causal softmax attention"
        )
    return SoftmaxAttention(
        attention.query.unsqueeze(0),
        attention.key.unsqueeze(0),
        attention.scale,
        mask=attention.mask,
        bias=attention.bias,
        softcap=attention.softcap,
        sinks=attention.sinks,
    )


def _facts_of(trace: Trace, stretch: Stretch) -> TokenFacts:
    """Return the entropies from the row before the response on, and its log-probabilities.

    A trace keeps both at the token that was drawn, one place behind the row that it was drawn from.
    """
    count = stretch.end - stretch.first
    entropy = torch.full((count + 1,), torch.nan)
    if trace.entropies is not None:
        drawn = trace.entropies[stretch.first : stretch.end + 1].float()
        entropy[: len(drawn)] = drawn
    log_probability = torch.full((count,), torch.nan)
    if trace.log_probabilities is not None:
        log_probability[:] = trace.log_probabilities[stretch.first : stretch.end].float()
    return TokenFacts(entropy=entropy, log_probability=log_probability)
