"""How the measures of pictures are asked of an observation: where the image and its sinks are."""

from collections.abc import Mapping, Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.metrics.errors import MetricError
from attnscope.metrics.observing import of_hidden, response_rows
from attnscope.metrics.rows import Rows, chosen_rows, mean_rows
from attnscope.metrics.saliency import layer_saliency
from attnscope.metrics.segment_attention import attention_to_segments
from attnscope.metrics.visual_sink import (
    image_attention,
    image_centric_heads,
    sink_dimension_value,
    sink_tokens,
    visual_nonsink_ratio,
)
from attnscope.traces import Observation

__all__ = [
    "image_attention_of",
    "image_centric_share_of",
    "saliency_of",
    "segment_attention_of",
    "segment_names",
    "sink_dimension_value_of",
    "visual_nonsink_ratio_of",
    "visual_sinks_of",
]

Dimensions = Sequence[int] | None


def segment_attention_of(
    observation: Observation, queries: Rows | None = None
) -> Float[Tensor, "head segment"]:
    """Return what the response's rows, or all where there is none, give to each segment."""
    rows = response_rows(observation) if queries is None else queries
    return attention_to_segments(observation.attention, observation.keys.segments, rows)


def segment_names(observation: Observation, **_: object) -> Mapping[str, tuple[str, ...]]:
    """Return the names of the segments."""
    return {"segment": observation.keys.segments.names}


def image_attention_of(observation: Observation) -> Float[Tensor, "head query"]:
    """Return what each query gives to the image."""
    return image_attention(observation.attention, _image(observation))


def sink_dimension_value_of(
    observation: Observation, dimensions: Dimensions = None
) -> Float[Tensor, " token"]:
    """Return the sink dimension value of the hidden states that entered the layer."""
    return of_hidden(sink_dimension_value)(observation, dimensions=dimensions)


def visual_sinks_of(
    observation: Observation, dimensions: Dimensions = None, tau: float = 20.0
) -> Float[Tensor, " token"]:
    """Return 1 for each token of the image that is a sink, 0 for its others, NaN elsewhere."""
    sinks = _sinks(observation, dimensions, tau).double()
    verdict = sinks.new_full(sinks.shape, float("nan"))
    image = _image(observation)
    verdict[image] = sinks[image]
    return verdict


def visual_nonsink_ratio_of(
    observation: Observation, dimensions: Dimensions = None, tau: float = 20.0
) -> Float[Tensor, "head query"]:
    """Return which part of its attention to the image each query gives to what is no sink."""
    sinks = _sinks(observation, dimensions, tau)
    return visual_nonsink_ratio(observation.attention, _image(observation), sinks)


def image_centric_share_of(
    observation: Observation,
    dimensions: Dimensions = None,
    tau: float = 20.0,
    rho: float = 0.8,
    least_mass: float = 0.2,
    queries: Rows | None = None,
) -> Float[Tensor, " head"]:
    """Return for which share of the response's rows each head is image-centric."""
    ratio = visual_nonsink_ratio_of(observation, dimensions, tau)
    mass = image_attention_of(observation)
    chosen = image_centric_heads(mass, ratio, rho=rho, least_mass=least_mass)
    rows = response_rows(observation) if queries is None else queries
    return mean_rows(chosen.to(mass.dtype), chosen_rows(observation.attention, rows))


def saliency_of(observation: Observation, query: int | None = None) -> Float[Tensor, " key"]:
    """Return the saliency of each key on one row, of length 1.

    By default the last row with a gradient: rows behind the one that predicts the last target
    cannot reach it, so that this is the one.
    """
    value, gradient = observation.value, observation.gradient
    if value is None or gradient is None:
        raise MetricError(f"no values and gradients were captured at {observation.site.path}")
    if query is None:
        reached = (gradient != 0).any(-1).any(0).nonzero()
        query = int(reached[-1]) if len(reached) else observation.attention.queries - 1
    return layer_saliency(observation.attention, value, gradient, [query])[0]


def _sinks(observation: Observation, dimensions: Dimensions, tau: float) -> Bool[Tensor, " token"]:
    return sink_tokens(sink_dimension_value_of(observation, dimensions), tau)


def _image(observation: Observation) -> list[int]:
    segments = observation.keys.segments
    if "image" not in segments:
        raise MetricError(
            f"no image segment in sequence {observation.keys.name!r}; it has {list(segments.names)}"
        )
    return segments["image"]
