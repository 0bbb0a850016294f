"""Whether a map that comes from elsewhere is what it is said to be, and the trace of such maps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.probes.errors import CaptureError
from attnscope.traces import Observation, Provenance, Site, TokenSequence, Trace

__all__ = ["checked_map", "imported_trace", "numbered", "observed"]

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def checked_map(
    given: object, where: str, *, partial: bool = False, causal: bool = False
) -> Tensor:
    """Return a map `head query key` if it is one, cut from its batch of one.

    Args:
        given: A tensor `(head, query, key)`, or with a batch axis of one before them.
        where: What to call it in errors.
        partial: Rows may sum to less than 1, as beside a learned sink.
        causal: No query may read a later position.

    Raises:
        CaptureError: It is no tensor, of another shape, or no map after a softmax.
    """
    if not isinstance(given, Tensor) or not given.is_floating_point():
        kind = type(given).__name__ if not isinstance(given, Tensor) else str(given.dtype)
        raise CaptureError(f"{where} is {kind}; a map is a tensor of floating numbers")
    if given.ndim == 4 and len(given) == 1:
        given = given[0]
    if given.ndim != 3 or not given.numel():
        raise CaptureError(
            f"{where} has shape {tuple(given.shape)}; a trace is one sequence, so that a map has "
            "the axes (head, query, key), or (1, head, query, key); cut one item from a batch"
        )
    pattern = given.detach().cpu()
    _require_rows(pattern, where, partial)
    if causal and bool(pattern.triu(pattern.shape[-1] - pattern.shape[-2] + 1).any()):
        raise CaptureError(f"{where} reads later positions, and was said to be causal")
    return pattern


def _require_rows(pattern: Tensor, where: str, partial: bool) -> None:
    if not bool(pattern.isfinite().all()) or bool((pattern < 0).any()):
        raise CaptureError(
            f"{where} has entries from {float(pattern.min()):.3g} to {float(pattern.max()):.3g}: "
            "scores before the softmax, it seems, and not the map after it"
        )
    sums = pattern.sum(-1, dtype=torch.promote_types(pattern.dtype, torch.float32))
    sums = sums[sums != 0]  # queries that see nothing
    tolerance = _TOLERANCE.get(pattern.dtype, 2e-2)
    low = torch.zeros(()) if partial else 1 - tolerance
    if not len(sums) or bool((sums > 1 + tolerance).any()) or bool((sums < low).any()):
        span = f"{float(sums.min()):.3g} to {float(sums.max()):.3g}" if len(sums) else "to 0"
        raise CaptureError(
            f"rows of {where} sum {span}, those of a map to 1; beside a learned sink they sum to "
            "less, which partial=True allows"
        )


def numbered(name: str, tokens: Sequence[str] | None, length: int) -> TokenSequence:
    """Return a sequence of tokens, or of numbers where no tokens are given.

    Raises:
        CaptureError: There are more or fewer tokens than positions.
    """
    if tokens is not None and len(tokens) != length:
        raise CaptureError(f"{len(tokens)} {name} tokens were given for {length} positions")
    printed = map(str, range(length)) if tokens is None else map(str, tokens)
    return TokenSequence(name=name, tokens=tuple(printed))


def observed(
    attention: AttentionOperator,
    place: tuple[str, int],
    queries: TokenSequence,
    keys: TokenSequence,
    *,
    value: Tensor | None = None,
) -> Observation:
    """Return an observation of a layer of a stack."""
    stack, layer = place
    site = Site(
        stack=stack,
        layer=layer,
        path=f"{stack}.{layer}",
        query_sequence=queries.name,
        key_sequence=keys.name,
    )
    return Observation(site=site, attention=attention, queries=queries, keys=keys, value=value)


def imported_trace(
    observations: Sequence[Observation], main: str, notes: Mapping[str, str], model: str = ""
) -> Trace:
    """Return a trace whose provenance says where it was taken from.

    Raises:
        TraceError: The observations do not fit each other.
    """
    sequences = {
        sequence.name: sequence for one in observations for sequence in (one.queries, one.keys)
    }
    return Trace(
        observations=observations,
        sequences=sequences,
        main_sequence=main,
        provenance=Provenance(model=model, notes=notes),
    )
