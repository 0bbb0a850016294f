"""`trace_relevance`: what each token of a captured run did for the target, in every sequence."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.reading import Reading
from attnscope.metrics.relevance import (
    chefer_relevance,
    cross_relevance,
    gradient_rollout,
    positive_gradient,
)
from attnscope.metrics.rows import precise
from attnscope.traces import Observation, Trace

__all__ = ["gradient_rollout_of", "relevance_of", "trace_relevance"]

_PAPER = "Chefer et al. 2021, arXiv:2103.15679"


def relevance_of(observations: Sequence[Observation], query: int = -1) -> Float[Tensor, " key"]:
    """Return the relevance of each token of one stack's sequence to one of its tokens."""
    return chefer_relevance([influence_of(observation) for observation in observations], query)


def gradient_rollout_of(
    observations: Sequence[Observation], query: int = -1
) -> Float[Tensor, " key"]:
    """Return the rollout of positive gradients of one token through one stack."""
    return gradient_rollout([influence_of(observation) for observation in observations], query)


def influence_of(observation: Observation) -> AttentionOperator:
    """Return `(A dL/dA)^+` of a site.

    Raises:
        MetricError: It was captured without a gradient.
    """
    if observation.gradient is None or observation.value is None:
        raise MetricError(
            f"relevance at {observation.site.path} needs the gradient of the target, which was not "
            "captured; capture with gradient='logit'"
        )
    return positive_gradient(observation.attention, observation.value, observation.gradient)


def trace_relevance(trace: Trace, query: int = -1) -> dict[str, Reading]:
    """Return the relevance of the tokens of every sequence that a token draws on, by sequence.

    The main sequence's own comes from its self-attention. Where the main sequence reads another
    one by cross-attention (an encoder's text, a picture), that one's tokens come from there and
    from the self-attention of their own stack. Each is the row of one query, without a matrix.

    Args:
        trace: A run captured with `gradient="logit"` or another `Logit`.
        query: The token of the main sequence at which the target is read.

    Raises:
        MetricError: There is no gradient, or the main sequence does not attend to itself.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679; a target's own row, as in its rules.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> from attnscope.traces import Site, TokenSequence
        >>> text = TokenSequence(name="text", tokens=("to", "be"))
        >>> seen = [
        ...     Observation(
        ...         site=Site(stack="layers", layer=layer, path=f"layers.{layer}"),
        ...         attention=DenseAttention(torch.tensor([[[0.5, 0.5], [0.2, 0.8]]])),
        ...         queries=text,
        ...         keys=text,
        ...         value=torch.eye(2)[None],
        ...         gradient=torch.tensor([[[1.0, 0.0], [0.0, -1.0]]]),
        ...     )
        ...     for layer in (0, 1)
        ... ]
        >>> trace = Trace(observations=seen, sequences={"text": text}, main_sequence="text")
        >>> trace_relevance(trace, query=0)["text"].values.tolist()
        [2.25, 0.0]
    """
    main = trace.main_sequence
    own: list[Observation] = []
    crossing: dict[str, list[tuple[int, Observation]]] = {}
    inner: dict[str, list[Observation]] = {}
    for observation in trace.observations:
        reader, read = observation.site.query_sequence, observation.site.key_sequence
        if reader == read:
            (own if read == main else inner.setdefault(read, [])).append(observation)
        elif reader == main:
            crossing.setdefault(read, []).append((len(own), observation))
    if not own:
        raise MetricError(f"no site of this trace reads {main!r} from itself; it has {trace.sites}")
    decoder = [influence_of(observation) for observation in own]
    readings = {main: _reading(own[-1], chefer_relevance(decoder, query), query)}
    for read, sites in crossing.items():
        cross = [(reached, influence_of(observation)) for reached, observation in sites]
        encoder = [influence_of(observation) for observation in inner.get(read, ())]
        row = cross_relevance(decoder, cross, encoder).rows([query])
        readings[read] = _reading(sites[-1][1], precise(row)[0, 0], query)
    return readings


def _reading(observation: Observation, values: Tensor, query: int) -> Reading:
    return Reading(
        name="relevance",
        title="Relevance",
        values=values.detach().cpu(),
        axes=("key",),
        bounds=(0.0, None),
        paper=_PAPER,
        coordinates={"key": observation.keys.tokens},
        stack=observation.site.stack,
        options={"query": query},
    )
