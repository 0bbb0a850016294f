"""`Metric`: one entry of the catalog, what a metric measures, on what, and what comes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from attnscope.attention import GateAttention, KeyFunction
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import require_whole
from attnscope.traces import Observation

__all__ = ["NEEDS", "Metric", "Streamed"]

NEEDS: Mapping[str, tuple[Callable[[Observation], bool], str]] = MappingProxyType(
    {
        "distribution": (
            lambda o: o.attention.stochastic,
            "rows that sum to 1 (pass renormalize=True to rescale rows that do not)",
        ),
        "shares": (
            lambda o: not (o.attention.signed or isinstance(o.attention, GateAttention)),
            "attention that is nowhere negative and spreads over keys, as a gate does not",
        ),
        "positions": (
            lambda o: o.attention.offset is not None,
            "queries and keys that are positions of one sequence",
        ),
        "causal": (lambda o: o.attention.causal, "causal attention"),
        "ids": (lambda o: o.keys.ids is not None, "token ids"),
        "grid": (
            lambda o: any(run.grid is not None for run in o.keys.segments),
            "a segment with a grid of patches",
        ),
        "segments": (lambda o: bool(o.keys.segments.runs), "segments, and the keys have none"),
        "image": (lambda o: "image" in o.keys.segments, "an image segment"),
        "response": (lambda o: "response" in o.queries.segments, "a response segment"),
        "hidden": (lambda o: o.hidden is not None, "the hidden states, which were not captured"),
        "value": (lambda o: o.value is not None, "the values, which were not captured"),
        "gradient": (lambda o: o.gradient is not None, "the gradient, which was not captured"),
    }
)
"""What a metric may need of an observation: how to tell, and how to say that it is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A measurement over all layers that looks at one layer at a time.

    Attributes:
        part: What is kept of each layer: `part(observation, **options)`, small tensors by name.
        whole: The values from the parts of all layers, stacked: `whole(parts, **options)`.
    """

    part: Callable[..., Mapping[str, Tensor]]
    whole: Callable[..., Tensor]

    def __call__(self, observations: Sequence[Observation], **options: object) -> Tensor:
        """Return the values of all layers, one layer at a time."""
        return self.join(
            [self.part(observation, **options) for observation in observations], **options
        )

    def join(self, parts: Sequence[Mapping[str, Tensor]], **options: object) -> Tensor:
        """Return the values from what was kept of each layer."""
        stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        return self.whole(stacked, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric is: enough to measure it, to store it, to draw it and to find its paper.

    Attributes:
        name: Its name in the catalog.
        title: Its name in words.
        unit: Unit of its values; empty for a pure number.
        axes: Axes of its reading; over sites the first is `layer`.
        bounds: Least and greatest possible value: a number, the name of the option that it equals,
            or None where there is none.
        needs: What it asks of an observation, in the words of `NEEDS`.
        paper: Author, year, arXiv number and place of its definition.
        measure: Over sites, `measure(observation, **options)` gives the values of one layer,
            without the layer axis; over the trace, `measure(observations, **options)` gives all.
        over: Whether layers are measured one by one or together.
        rides: Moments of the key worth averaging in the model's own fused call.
        options: Every option with its default.
        labels: Coordinates of axes that are not layers, heads or tokens:
            `labels(observation, **options)`, by axis.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    measure: Callable[..., Tensor]
    paper: str
    unit: str = ""
    bounds: tuple[float | str | None, float | str | None] = (None, None)
    needs: tuple[str, ...] = ()
    over: Literal["site", "trace"] = "site"
    rides: tuple[KeyFunction, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    labels: Callable[..., Mapping[str, tuple]] | None = None

    @property
    def streams(self) -> bool:
        """Return whether it can be measured as the model runs, keeping no layer."""
        return self.over == "site" or isinstance(self.measure, Streamed)

    def missing(self, observation: Observation) -> tuple[str, ...]:
        """Return which of its needs an observation does not meet."""
        return tuple(need for need in self.needs if not NEEDS[need][0](observation))

    def require(self, observation: Observation) -> None:
        """Refuse an observation that lacks what the metric needs.

        Raises:
            MetricError: Something is missing.
        """
        if "hidden" not in self.needs:
            require_whole(observation.attention, f"{self.name} at {observation.site.path}")
        missing = self.missing(observation)
        if missing:
            wanted = "; ".join(NEEDS[need][1] for need in missing)
            raise MetricError(
                f"{self.name} at {observation.site.path} needs {wanted}. There is "
                f"{observation.attention!r} with the segments "
                f"{list(observation.keys.segments.names)}"
            )

    def complete(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return all options, the given ones over the defaults.

        Raises:
            MetricError: The metric has no such option.
        """
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            raise MetricError(
                f"{self.name} has no option {', '.join(unknown)}; it has {sorted(self.options)}"
            )
        return {**self.options, **options}

    def limits(self, options: Mapping[str, object]) -> tuple[float | None, float | None]:
        """Return the bounds as numbers, where an option decides them."""
        low, high = (
            options.get(bound) if isinstance(bound, str) else bound for bound in self.bounds
        )
        return _number(low), _number(high)


def _number(bound: object) -> float | None:
    return float(bound) if isinstance(bound, int | float) else None
