"""`Measuring`: a recorder that measures as the model runs and keeps no layer."""

from collections.abc import Mapping

from attnscope.attention import KeyFunction, OperatorError
from attnscope.metrics import METRICS, Accumulator, Metric, MetricError, Reading, find_metric
from attnscope.probes.collector import Run
from attnscope.traces import Observation, Site

__all__ = ["Measuring"]

_OBSERVED = frozenset({"gradient", "hidden"})


class Measuring:
    """Measures metrics site by site; the result is `{name: Reading}`, equal to measuring a trace.

    Factors are let go as soon as a layer is measured, so that memory is that of the plain forward
    pass. Moments that a metric wants ride on the model's own fused calls.

    Args:
        metrics: Metrics, or their names in the catalog.
        options: Options of each metric, by its name.
        stack: The stack to measure; by default the main one, as in a trace.

    Raises:
        MetricError: A metric or an option is unknown, or a metric needs all layers at once.
    """

    def __init__(
        self,
        *metrics: str | Metric,
        options: Mapping[str, Mapping[str, object]] | None = None,
        stack: str | None = None,
    ) -> None:
        if not metrics:
            raise MetricError(f"name at least one metric to measure; there are {sorted(METRICS)}")
        self._metrics = tuple(find_metric(metric) for metric in metrics)
        self._options = {name: dict(given) for name, given in (options or {}).items()}
        unknown = sorted(set(self._options) - {metric.name for metric in self._metrics})
        if unknown:
            raise MetricError(f"options for {unknown}, which are not measured here")
        self._stack = stack
        self.start()

    @property
    def needs(self) -> frozenset[str]:
        """Return what has to be observed besides attention."""
        return _OBSERVED & {need for metric in self._metrics for need in metric.needs}

    @property
    def riders(self) -> tuple[KeyFunction, ...]:
        """Return the moments that the metrics want, each once."""
        return tuple(
            {ride.name: ride for metric in self._metrics for ride in metric.rides}.values()
        )

    def start(self) -> None:
        """Forget any earlier capture, and make sure that every metric can stream."""
        self._accumulators: dict[str, list[Accumulator]] = {}
        self._failures: dict[str, MetricError | OperatorError] = {}
        self._sites: dict[str, Site] = {}
        self._fresh()

    def record(self, observation: Observation) -> None:
        """Measure one site.

        A stack that a metric cannot measure (a vision tower beside a language model) fails alone,
        and only matters if it is the one that is asked for.
        """
        stack = observation.site.stack
        self._sites.setdefault(stack, observation.site)
        if stack in self._failures:
            return
        if stack not in self._accumulators:
            self._accumulators[stack] = self._fresh()
        try:
            for accumulator in self._accumulators[stack]:
                accumulator.update(observation)
        except (MetricError, OperatorError) as error:
            self._failures[stack] = error

    def finish(self, run: Run) -> dict[str, Reading]:
        """Return the readings of the chosen stack, by the metrics' names.

        Raises:
            MetricError: The stack was not seen, or could not be measured.
        """
        stack = self._main_stack(run) if self._stack is None else self._stack
        if stack in self._failures:
            raise self._failures[stack]
        if stack not in self._accumulators:
            raise MetricError(f"no stack {stack!r} was seen; there are {sorted(self._sites)}")
        return {
            accumulator.metric.name: accumulator.finish()
            for accumulator in self._accumulators.pop(stack)
        }

    def _main_stack(self, run: Run) -> str:
        """Return the stack that would be the main one of a trace of this run."""
        main = run.main_sequence
        spoken = (stack for stack, site in self._sites.items() if site.reads_itself(main))
        return next(spoken, next(iter(self._sites)))

    def _fresh(self) -> list[Accumulator]:
        return [Accumulator(metric, self._options.get(metric.name)) for metric in self._metrics]
