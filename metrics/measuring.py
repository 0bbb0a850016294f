"""`measure` and `Accumulator`: one code for stored traces and for models that are running."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from attnscope.metrics.catalog import find_metric
from attnscope.metrics.errors import MetricError
from attnscope.metrics.framing import Frame
from attnscope.metrics.kept_readings import kept_reading
from attnscope.metrics.metric import Metric, Streamed
from attnscope.metrics.reading import Reading
from attnscope.traces import Observation, Trace

__all__ = ["Accumulator", "measure", "readings_of"]


def measure(
    trace: Trace, metric: str | Metric, *, stack: str | None = None, **options: object
) -> Reading:
    """Return the reading of a metric on one stack of a trace.

    A trace that was reduced gives the reading that it keeps, where it has lost what the metric
    would need.

    Args:
        trace: What was captured.
        metric: A metric, or its name in the catalog.
        stack: The stack to measure; by default the main one.
        options: The metric's own options, and `renormalize=True` to rescale rows that do not sum
            to 1, as under learned sinks.

    Raises:
        MetricError: The metric or an option is unknown, the trace lacks what the metric needs, or
            its layers do not have one shape.
    """
    found = find_metric(metric)
    kept = kept_reading(trace, found, stack, options)
    if kept is not None:
        return kept
    return readings_of(trace.observe(stack), [found], {found.name: options})[found.name]


def readings_of(
    observations: Iterable[Observation],
    metrics: Iterable[str | Metric],
    options: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, Reading]:
    """Return the readings of several metrics, by name, from one pass over the layers of a stack.

    Layers are let go one by one, unless a metric needs them all at once.

    Args:
        observations: The layers of one stack, in order.
        metrics: Metrics, or their names in the catalog.
        options: Options of each metric, by its name.

    Raises:
        MetricError: As for `measure`.
    """
    given = options or {}
    running: dict[str, Accumulator | _Holder] = {}
    for metric in map(find_metric, metrics):
        kind = Accumulator if metric.streams else _Holder
        running[metric.name] = kind(metric, given.get(metric.name, {}))
    for observation in observations:
        for accumulator in running.values():
            accumulator.update(observation)
        del observation  # before the next layer is read
    return {name: accumulator.finish() for name, accumulator in running.items()}


class Accumulator:
    """A metric being measured layer by layer, as a model runs or as a trace is read.

    Nothing of a layer is kept but the metric's own numbers, without gradients.

    Args:
        metric: A metric, or its name in the catalog.
        options: Its options, and `renormalize=True` to rescale rows that do not sum to 1.

    Raises:
        MetricError: The metric or an option is unknown, or the metric needs all layers at once.
    """

    def __init__(self, metric: str | Metric, options: Mapping[str, object] | None = None) -> None:
        self._frame = Frame(find_metric(metric), options or {})
        if not self.metric.streams:
            raise MetricError(
                f"{self.metric.name} needs all layers at once; collect a trace and measure that"
            )
        self._parts: list[Mapping[str, Tensor]] = []

    @property
    def metric(self) -> Metric:
        """Return the metric."""
        return self._frame.metric

    def update(self, observation: Observation) -> None:
        """Measure one layer.

        Raises:
            MetricError: The layer lacks what the metric needs, belongs to another stack, was
                measured before, or gives another shape than the layers before.
        """
        observation = self._frame.enter(observation)
        with self._frame.naming(observation):
            part = self._part(observation)
        for name, tensor in self._parts[0].items() if self._parts else ():
            if tensor.shape != part[name].shape:
                raise MetricError(
                    f"{self.metric.name} has shape {tuple(tensor.shape)} in the layers before and "
                    f"{tuple(part[name].shape)} at {observation.site.path}; layers of different "
                    "shapes do not make one reading: select some with Trace.select(layers=...)"
                )
        self._parts.append({name: tensor.detach() for name, tensor in part.items()})
        self._frame.count(observation)

    def finish(self) -> Reading:
        """Return the reading of all layers so far.

        Raises:
            MetricError: There was none.
        """
        self._frame.require_layers()
        measurement = self.metric.measure
        # A model may be spread over devices; its readings come together on the processor.
        parts = [{name: tensor.cpu() for name, tensor in part.items()} for part in self._parts]
        if isinstance(measurement, Streamed):
            return self._frame.read(measurement.join(parts, **self._frame.options))
        return self._frame.read(torch.stack([part["values"] for part in parts]))

    def _part(self, observation: Observation) -> Mapping[str, Tensor]:
        measurement, options = self.metric.measure, self._frame.options
        if isinstance(measurement, Streamed):
            return measurement.part(observation, **options)
        return {"values": measurement(observation, **options)}


class _Holder:
    """A metric that needs all layers at once, waiting for the last."""

    def __init__(self, metric: Metric, options: Mapping[str, object]) -> None:
        self._frame = Frame(metric, options)
        self._held: list[Observation] = []

    def update(self, observation: Observation) -> None:
        self._held.append(self._frame.enter(observation))
        self._frame.count(observation)

    def finish(self) -> Reading:
        self._frame.require_layers()
        with self._frame.naming(self._held[-1]):
            values = self._frame.metric.measure(self._held, **self._frame.options)
        return self._frame.read(values)
