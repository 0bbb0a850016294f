"""`kept_reading`: a reading that a reduced trace keeps in place of the attention it is of."""

from collections.abc import Mapping

from attnscope.metrics.errors import MetricError
from attnscope.metrics.metric import Metric
from attnscope.metrics.reading import Reading
from attnscope.traces import StoredReading, Trace

__all__ = ["kept_reading"]


def kept_reading(
    trace: Trace, metric: Metric, stack: str | None, options: Mapping[str, object]
) -> Reading | None:
    """Return the reading that a trace keeps of a metric, where it cannot be measured any more.

    None where the trace still has its attention, or has lost weights and keeps no such reading.

    Raises:
        MetricError: The trace holds no attention, and no reading of this metric and options.
    """
    if trace.sites and not _has_lost_weights(trace, stack):
        return None
    found = [one for one in trace.readings.values() if _fits(one, trace, metric, stack, options)]
    if found:
        return Reading(**dict(found[0].facts()))
    if trace.sites:
        return None
    kept = [f"{one.name} {dict(one.options)}" for one in trace.readings.values()]
    raise MetricError(
        f"{metric.name} cannot be measured: this trace keeps no attention. It keeps the readings "
        f"{', '.join(kept) or 'of nothing'}"
    )


def _has_lost_weights(trace: Trace, stack: str | None) -> bool:
    wanted = stack or trace.main_stack
    return any(
        summary.site.stack == wanted and summary.kind == "TruncatedAttention"
        for summary in trace.observed.summaries
    )


def _fits(
    kept: StoredReading,
    trace: Trace,
    metric: Metric,
    stack: str | None,
    options: Mapping[str, object],
) -> bool:
    """Return whether a kept reading is what would be measured here."""
    given = dict(options)
    renormalize = {"renormalize": True} if given.pop("renormalize", False) is True else {}
    wanted = {**metric.complete(given), **renormalize}
    here = stack or (trace.main_stack if trace.sites else kept.stack)
    layers = tuple(site.layer for site in trace.sites if site.stack == here)
    same_layers = not layers or kept.coordinates.get("layer", layers) == layers
    same = (kept.name, kept.stack) == (metric.name, here)
    return same and same_layers and _plain(kept.options) == _plain(wanted)


def _plain(value: object) -> object:
    """Return options as a file gives them back: sequences of any kind as lists."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple | range) else value
