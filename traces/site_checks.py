"""Checks that the sites of a trace fit its sequences and each other."""

from collections.abc import Mapping, Sequence

from attnscope.traces.errors import TraceError
from attnscope.traces.observations import SiteSummary, summarize
from attnscope.traces.segments import TokenSequence
from attnscope.traces.site import Observation

__all__ = ["check_factors", "check_held", "check_sites"]


def check_sites(summaries: Sequence[SiteSummary], sequences: Mapping[str, TokenSequence]) -> None:
    """Refuse sequences under a wrong name, unknown ones, other lengths, and sites seen twice.

    Raises:
        TraceError: Something does not fit.
    """
    for name, sequence in sequences.items():
        if sequence.name != name:
            raise TraceError(f"the sequence under {name!r} calls itself {sequence.name!r}")
    seen: set[tuple[str, int]] = set()
    for summary in summaries:
        site = summary.site
        if (site.stack, site.layer) in seen:
            raise TraceError(f"layer {site.layer} of stack {site.stack!r} was observed twice")
        seen.add((site.stack, site.layer))
        _, queries, keys = summary.shape
        _check_length(site.path, "queries", queries, sequences.get(site.query_sequence))
        _check_length(site.path, "keys", keys, sequences.get(site.key_sequence))


def check_held(observations: Sequence[Observation], sequences: Mapping[str, TokenSequence]) -> None:
    """Refuse observations with a batch axis, foreign sequences, or factors of another shape.

    Raises:
        TraceError: Something does not fit.
    """
    for observation in observations:
        path, shape = observation.site.path, tuple(observation.attention.shape)
        if len(shape) != 3:
            raise TraceError(
                f"the attention of {path} has shape {shape}; a trace holds (head, query, key), "
                "one sequence without a batch axis"
            )
        named = (observation.site.query_sequence, observation.site.key_sequence)
        for name, sequence in zip(named, (observation.queries, observation.keys), strict=True):
            if sequences.get(name) not in (None, sequence):
                raise TraceError(f"{path} was seen on another sequence {name!r} than the trace's")
        factors = (observation.value, observation.gradient)
        value, gradient = (None if f is None else tuple(f.shape) for f in factors)
        check_factors(summarize(observation), value, gradient)


def _check_length(path: str, what: str, count: int, sequence: TokenSequence | None) -> None:
    if sequence is None:
        raise TraceError(f"the {what} of {path} are positions of a sequence that is not there")
    if len(sequence) != count:
        raise TraceError(
            f"{path} has {count} {what}, sequence {sequence.name!r} has {len(sequence)} positions"
        )


def check_factors(
    summary: SiteSummary, value: tuple[int, ...] | None, gradient: tuple[int, ...] | None
) -> None:
    """Refuse values and gradients whose shapes do not fit the attention that they belong to.

    Raises:
        TraceError: Something does not fit.
    """
    heads, queries, keys = summary.shape
    if value is not None and (
        len(value) != 3 or not value[0] or heads % value[0] or value[1] != keys
    ):
        raise TraceError(
            f"the values of {summary.site.path} have shape {value}; {heads} heads read {keys} keys"
        )
    if gradient is not None and (len(gradient) != 3 or gradient[:2] != (heads, queries)):
        raise TraceError(
            f"the gradient of {summary.site.path} has shape {gradient}; "
            f"there are {heads} heads and {queries} queries"
        )
    if value is not None and gradient is not None and value[2] != gradient[2]:
        raise TraceError(
            f"values and gradient of {summary.site.path} have widths {value[2]} and {gradient[2]}"
        )
