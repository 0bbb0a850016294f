"""Checks that a trace is of this model, and of the tokens that the model reads."""

from collections.abc import Iterator

from attnscope.probes.encoding import Encoded
from attnscope.probes.subject import Subject
from attnscope.probes.weights import weights_fingerprint
from attnscope.traces import Check, Segment, TokenSequence, Trace

__all__ = ["origin_checks", "token_checks"]

_DERIVED = ("special", "image")
"""Segments that token ids alone tell; roles are known to whoever wrote the text."""


def origin_checks(trace: Trace, subject: Subject) -> Iterator[Check]:
    """Yield whether type, weights and treatment of the model are those of the trace."""
    origin = trace.provenance
    parameter = next(subject.model.parameters(), None)
    dtype = None if parameter is None else str(parameter.dtype).removeprefix("torch.")
    if origin.dtype is not None:
        note = "" if origin.dtype == dtype else f"{origin.dtype} then, {dtype} now"
        yield Check(what="type", where="the model", passed=not note, note=note)
    yield _weights(trace, subject)
    if origin.revision and subject.revision and origin.revision != subject.revision:
        note = f"revision {origin.revision} then, {subject.revision} now"
        yield Check(what="revision", where="the model", passed=False, note=note)
    if "interventions" in origin.notes:
        note = f"captured under {origin.notes['interventions']}: the model alone does otherwise"
        yield Check(what="interventions", where="the model", passed=False, note=note)


def _weights(trace: Trace, subject: Subject) -> Check:
    known, found = trace.provenance.weights, weights_fingerprint(subject.model)
    where = f"{subject.name or type(subject.model).__name__}"
    if known is None:
        note = "the trace has no fingerprint of them: only the numbers speak"
        return Check(what="weights fingerprint", where=where, passed=True, note=note)
    note = "" if known == found else f"{known} then, {found} now: another checkpoint"
    return Check(what="weights fingerprint", where=where, passed=not note, note=note)


def token_checks(trace: Trace, encoded: Encoded, given: bool) -> Iterator[Check]:
    """Yield whether each sequence holds the tokens and segments that the model's inputs give.

    Args:
        trace: The trace.
        encoded: What the model reads.
        given: Whether these are the caller's inputs, whose roles are known, too.
    """
    for name, expected in encoded.sequences.items():
        found = trace.sequences.get(name)
        if found is None:
            note = f"the model reads {name!r}; the trace has {list(trace.sequences)}"
            yield Check(what="tokens", where=name, passed=False, note=note)
            continue
        note = _tokens(found, expected)
        yield Check(what="tokens", where=name, passed=not note, note=note)
        if not note:
            note = _segments(found, expected, given)
            yield Check(what="segments", where=name, passed=not note, note=note)


def _tokens(found: TokenSequence, expected: TokenSequence) -> str:
    if len(found) != len(expected):
        return f"{len(found)} in the trace, {len(expected)} in what the model reads"
    ids = zip(found.ids or (), expected.ids or (), strict=False)
    wrong = next((place for place, (one, other) in enumerate(ids) if one != other), None)
    if wrong is not None:
        return f"another id at {wrong}: {found.ids[wrong]}, not {expected.ids[wrong]}"  # pyright: ignore[reportOptionalSubscript]
    texts = zip(found.tokens, expected.tokens, strict=True)
    wrong = next((place for place, (one, other) in enumerate(texts) if one != other), None)
    if wrong is None:
        return ""
    return f"another text at {wrong}: {found.tokens[wrong]!r}, not {expected.tokens[wrong]!r}"


def _segments(found: TokenSequence, expected: TokenSequence, given: bool) -> str:
    named = None if given else _DERIVED
    kept, wanted = _runs(found, named), _runs(expected, named)
    if kept == wanted:
        return ""
    return f"{', '.join(map(_run, kept)) or 'none'}, not {', '.join(map(_run, wanted)) or 'none'}"


def _runs(sequence: TokenSequence, named: tuple[str, ...] | None) -> list[Segment]:
    return [run for run in sequence.segments if named is None or run.name in named]


def _run(run: Segment) -> str:
    return f"{run.name} {run.start}-{run.stop - 1}"
