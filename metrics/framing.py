"""`Frame`: what surrounds the numbers of a reading, gathered while layers come by."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from attnscope.attention import OperatorError
from attnscope.metrics.errors import MetricError
from attnscope.metrics.metric import Metric
from attnscope.metrics.reading import Reading
from attnscope.traces import Observation

__all__ = ["Frame"]


class Frame:
    """A metric with its options, and the stack, layers and tokens that it was measured on.

    Args:
        metric: The metric.
        options: Its options, and `renormalize=True` to rescale rows that do not sum to 1.

    Raises:
        MetricError: The metric has no such option.
    """

    def __init__(self, metric: Metric, options: Mapping[str, object]) -> None:
        given = dict(options)
        self.metric = metric
        self.renormalize = given.pop("renormalize", False) is True
        self.options = metric.complete(given)
        self._stack: str | None = None
        self._layers: list[int] = []
        self._coordinates: dict[str, tuple] = {}

    def enter(self, observation: Observation) -> Observation:
        """Return the layer as it is to be measured, once it is known to fit.

        Raises:
            MetricError: The layer lacks what the metric needs, belongs to another stack, or was
                measured before.
        """
        with self.naming(observation):
            if self.renormalize:
                observation = replace(observation, attention=observation.attention.normalized())
        self.metric.require(observation)
        if self._stack is None:
            self._stack = observation.site.stack
            self._coordinates = self._along_tokens(observation)
        elif observation.site.stack != self._stack:
            raise MetricError(
                f"{self.metric.name} is measured on stack {self._stack!r}; {observation.site.path} "
                f"belongs to {observation.site.stack!r} (measure one stack at a time)"
            )
        if observation.site.layer in self._layers:
            raise MetricError(
                f"{self.metric.name} was measured on layer {observation.site.layer} before: "
                f"{observation.site.path} has run twice"
            )
        return observation

    def count(self, observation: Observation) -> None:
        """Count a layer among the measured ones."""
        self._layers.append(observation.site.layer)

    @contextmanager
    def naming(self, observation: Observation) -> Iterator[None]:
        """Measure without gradients, and name metric and site in an operator's refusal."""
        try:
            with torch.no_grad():
                yield
        except OperatorError as error:
            raise MetricError(f"{self.metric.name} at {observation.site.path}: {error}") from error

    def require_layers(self) -> None:
        """Refuse to make a reading of nothing.

        Raises:
            MetricError: No layer has entered.
        """
        if not self._layers:
            raise MetricError(f"{self.metric.name} was given no layer to measure")

    def read(self, values: Tensor) -> Reading:
        """Return the reading with these values."""
        metric = self.metric
        return Reading(
            name=metric.name,
            values=values.detach().cpu(),
            axes=metric.axes,
            unit=metric.unit,
            bounds=metric.limits(self.options),
            paper=metric.paper,
            title=metric.title,
            coordinates=self._coordinates_of(values),
            stack=self._stack or "",
            options={**self.options, **({"renormalize": True} if self.renormalize else {})},
        )

    def _along_tokens(self, observation: Observation) -> dict[str, tuple]:
        labels = self.metric.labels
        tokens: dict[str, tuple] = {
            "query": observation.queries.tokens,
            "key": observation.keys.tokens,
            "token": observation.queries.tokens,
        }
        return tokens | ({} if labels is None else dict(labels(observation, **self.options)))

    def _coordinates_of(self, values: Tensor) -> dict[str, tuple]:
        """Return what stands along each axis; one without names of its length goes by number."""
        named = {**self._coordinates, "layer": tuple(self._layers)}
        coordinates: dict[str, tuple] = {}
        for axis, size in zip(self.metric.axes, values.shape, strict=False):
            if axis == "head":
                coordinates[axis] = tuple(range(size))
            elif len(named.get(axis, ())) == size:
                coordinates[axis] = named[axis]
        return coordinates
