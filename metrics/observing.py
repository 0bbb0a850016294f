"""How metrics of operators are asked of an observation: which rows, which tokens, which patches."""

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from attnscope.metrics.detectors import (
    detector_score,
    duplicate_token_mass,
    induction_mass,
    previous_token_mass,
)
from attnscope.metrics.errors import MetricError
from attnscope.metrics.massive import massive_activations
from attnscope.metrics.receiver import receiver_score, sentence_attention, vertical_scores
from attnscope.metrics.rollout import attention_rollout
from attnscope.metrics.rows import Rows
from attnscope.metrics.sentences import sentence_spans
from attnscope.metrics.sink import received_attention, sink_rate
from attnscope.traces import Observation, Segment

__all__ = [
    "duplicate_token_of",
    "induction_of",
    "massive_activations_of",
    "of_attention",
    "of_hidden",
    "of_patches",
    "of_response",
    "previous_token_of",
    "receiver_score_of",
    "response_rows",
    "rollout_of",
    "sentence_labels",
    "sink_rate_of",
    "vertical_score_of",
]

Measurement = Callable[..., Tensor]
Spans = Sequence[tuple[int, int]]


def response_rows(observation: Observation) -> list[int] | None:
    """Return the rows of the response, or None (all rows) where there is no response segment."""
    segments = observation.queries.segments
    return segments["response"] if "response" in segments.names else None


def of_attention(metric: Callable[..., Tensor]) -> Measurement:
    """Return the measurement that asks a metric of the operator alone."""

    def measure(observation: Observation, **options: object) -> Tensor:
        return metric(observation.attention, **options)

    return measure


def of_response(metric: Callable[..., Tensor]) -> Measurement:
    """Return the measurement that takes the response's rows, or all where there is no response."""

    def measure(observation: Observation, queries: Rows | None = None, **options: object) -> Tensor:
        rows = response_rows(observation) if queries is None else queries
        return metric(observation.attention, queries=rows, **options)

    return measure


def of_hidden(metric: Callable[..., Tensor]) -> Measurement:
    """Return the measurement that asks a metric of the hidden states that entered the layer."""

    def measure(observation: Observation, **options: object) -> Tensor:
        if observation.hidden is None:
            raise MetricError(f"no hidden states were captured at {observation.site.path}")
        return metric(observation.hidden, **options)

    return measure


def of_patches(metric: Callable[..., Tensor]) -> Measurement:
    """Return the measurement of one image's patches; `image` counts segments with a grid."""

    def measure(observation: Observation, image: int = 0, **options: object) -> Tensor:
        site, run = observation.site, _image(observation, image)
        if site.query_sequence != site.key_sequence:
            raise MetricError(
                f"{site.path} reads {site.key_sequence!r} from {site.query_sequence!r}; distances "
                "between patches need queries and keys on one grid"
            )
        return metric(observation.attention, run.grid, run.positions, **options)

    return measure


def _image(observation: Observation, image: int) -> Segment:
    images = [run for run in observation.keys.segments if run.grid is not None]
    if not 0 <= image < len(images):
        raise MetricError(
            f"no image {image} in sequence {observation.keys.name!r}; it has {len(images)} "
            "segments with a grid of patches"
        )
    return images[image]


def previous_token_of(
    observation: Observation, queries: Rows | None = None
) -> Float[Tensor, " head"]:
    """Return the previous-token score of each head."""
    mass = previous_token_mass(observation.attention)
    return detector_score(observation.attention, mass, queries)


def duplicate_token_of(
    observation: Observation, queries: Rows | None = None
) -> Float[Tensor, " head"]:
    """Return the duplicate-token score of each head, on the captured token ids."""
    mass = duplicate_token_mass(observation.attention, _ids(observation))
    return detector_score(observation.attention, mass, queries)


def induction_of(observation: Observation, queries: Rows | None = None) -> Float[Tensor, " head"]:
    """Return the induction score of each head, on the captured token ids."""
    mass = induction_mass(observation.attention, _ids(observation))
    return detector_score(observation.attention, mass, queries)


def sink_rate_of(
    observation: Observation, key: int = 0, threshold: float = 0.3
) -> Float[Tensor, ""]:
    """Return the percentage of the layer's heads for which a key is a sink.

    The mean over layers is the percentage of all heads.
    """
    return sink_rate(received_attention(observation.attention), key, threshold)


def massive_activations_of(observation: Observation, **options: float) -> Float[Tensor, " token"]:
    """Return the number of massive activations at each position."""
    massive = of_hidden(massive_activations)(observation, **options)
    return massive.sum(-1).float()


def rollout_of(observations: Sequence[Observation], query: int = -1) -> Float[Tensor, " key"]:
    """Return the attention rollout of one token through all layers."""
    return attention_rollout([observation.attention for observation in observations], query)


def _ids(observation: Observation) -> tuple[int, ...]:
    if observation.keys.ids is None:
        raise MetricError(f"sequence {observation.keys.name!r} has no token ids")
    return observation.keys.ids


def vertical_score_of(
    observation: Observation, sentences: Spans | None = None, proximity: int = 4
) -> Float[Tensor, "head sentence"]:
    """Return the vertical score of each sentence in each head."""
    averaged = sentence_attention(observation.attention, _sentences(observation, sentences))
    return vertical_scores(averaged, proximity)


def receiver_score_of(
    observation: Observation, sentences: Spans | None = None, proximity: int = 4
) -> Float[Tensor, " head"]:
    """Return the receiver score of each head."""
    return receiver_score(vertical_score_of(observation, sentences, proximity))


def sentence_labels(
    observation: Observation, sentences: Spans | None = None, **_: object
) -> Mapping[str, tuple[str, ...]]:
    """Return the text of each sentence."""
    tokens = observation.keys.tokens
    spans = _sentences(observation, sentences)
    return {"sentence": tuple("".join(tokens[start:stop]).strip() for start, stop in spans)}


def _sentences(observation: Observation, sentences: Spans | None) -> Spans:
    """Return the sentences given, or those of the response, or those of all tokens."""
    if sentences is not None:
        return sentences
    segments, tokens = observation.keys.segments, observation.keys.tokens
    runs = [run for run in segments if run.name == "response"]
    if not runs:
        return sentence_spans(tokens)
    return tuple(span for run in runs for span in sentence_spans(tokens, run.start, run.stop))
