"""`measure_all`: several metrics of a trace, with options as a command line writes them."""

import json
from collections.abc import Iterable, Sequence

from attnscope.app.failures import CommandError
from attnscope.metrics import Metric, Reading, find_metric, kept_reading, readings_of
from attnscope.traces import Trace

__all__ = ["measure_all"]

_COMMON = {"renormalize": False}
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def measure_all(
    trace: Trace, names: Sequence[str], options: Sequence[str], *, stack: str | None = None
) -> list[Reading]:
    """Return the readings of metrics, from one pass over the layers.

    Args:
        trace: What was captured.
        names: Names of the metrics.
        options: Options as `name=value`; one goes to every metric that has it.
        stack: The stack to measure; by default the main one.

    Raises:
        CommandError: An option is not written so, belongs to no metric, or is of the wrong kind.
        MetricError: A metric is unknown, or the trace lacks what it needs.
        TraceError: The trace has no such stack, or is damaged.
    """
    metrics = [find_metric(name) for name in dict.fromkeys(names)]
    given = dict(_split(text) for text in options)
    _check_known(metrics, given)
    chosen = {metric.name: dict(_of(metric, given)) for metric in metrics}
    try:
        readings = _measured(trace, metrics, chosen, stack)
    except (TypeError, IndexError) as error:
        if not given:
            raise
        raise CommandError(f"the metrics cannot work with {given}: {error}") from error
    return [readings[metric.name] for metric in metrics]


def _measured(
    trace: Trace,
    metrics: Sequence[Metric],
    chosen: dict[str, dict[str, object]],
    stack: str | None,
) -> dict[str, Reading]:
    """Return what a reduced trace keeps, and the rest from one pass over the layers."""
    found = ((one, kept_reading(trace, one, stack, chosen[one.name])) for one in metrics)
    kept = {metric.name: reading for metric, reading in found if reading is not None}
    rest = [metric for metric in metrics if metric.name not in kept]
    return kept | (readings_of(trace.observe(stack), rest, chosen) if rest else {})


def _split(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise CommandError(f"{text!r} is no option; write name=value, as in window=20")
    return name.strip(), _value(value.strip())


def _value(text: str) -> object:
    """Return a value: a number, true, false, none, a list as in [3,4], or else text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text


def _check_known(metrics: Iterable[Metric], given: Iterable[str]) -> None:
    known = {name for metric in metrics for name in (*metric.options, *_COMMON)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise CommandError(f"no option {', '.join(unknown)}; these metrics have {sorted(known)}")


def _of(metric: Metric, given: dict[str, object]) -> Iterable[tuple[str, object]]:
    """Yield the options that a metric has, once they are of the kind of their defaults."""
    for name, value in given.items():
        if name in metric.options or name in _COMMON:
            default = metric.options.get(name, _COMMON.get(name))
            if not _fits(value, default):
                raise CommandError(
                    f"option {name} of {metric.name} cannot be {value!r}; "
                    f"it is {default!r} by default"
                )
            yield name, value


def _fits(value: object, default: object) -> bool:
    """Return whether a value may stand where the default stands; limits may be lifted by none."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int | None)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return not isinstance(value, str)
