"""`compared`: one site of a trace against rows that the model computed itself."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from attnscope.attention import AttentionOperator, OperatorError, TruncatedAttention
from attnscope.probes.own_attention import OwnRows
from attnscope.traces import Check, Observation

__all__ = ["TOLERANCES", "compared"]

TOLERANCES = {
    torch.float64: 1e-8,
    torch.float32: 5e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
"""Largest error by type: absolute of weights and row sums, relative to the largest of outputs."""


def compared(
    observation: Observation,
    own: OwnRows,
    choose: Callable[[int], Int[Tensor, " row"]],
    dtype: torch.dtype,
    heads: Sequence[int] | None = None,
) -> Iterator[Check]:
    """Yield how far weights, row sums and outputs are from the model's own.

    Args:
        observation: What the trace holds of the site.
        own: What the model computed.
        choose: Which rows were taken.
        dtype: Type that the model computes in.
        heads: The model's numbers of the heads that the trace kept; None for all.
    """
    attention, where = observation.attention, observation.site.path
    tolerance = max(TOLERANCES.get(kind, 5e-2) for kind in (dtype, *_types(attention)))
    expected = own.pattern if heads is None else own.pattern[list(heads)]
    rows = choose(attention.queries)
    shape = attention.heads, len(rows), attention.keys
    if tuple(expected.shape) != shape:
        note = f"{shape} heads, rows and keys in the trace, {tuple(expected.shape)} in the model"
        yield Check(what="weights", where=where, passed=False, note=note)
        return
    expected = expected.double()
    found = attention.rows(rows).detach().cpu().double()
    if isinstance(attention, TruncatedAttention):
        kept = torch.where(_held(attention, rows), expected, 0.0)
    else:
        kept = expected
    yield _checked("weights", where, found - kept, tolerance, own.way)
    sums = attention.row_mass()[..., rows.to(attention.device)].cpu().double()
    yield _checked("row sums", where, sums - expected.sum(-1), tolerance, "")
    if observation.value is None or own.output is None:
        return
    read = _read(attention, observation.value, rows)
    if read is not None:
        output = own.output.double()
        output = output if heads is None else output[list(heads)]
        scale = output.abs().max().clamp_min(1e-30)
        yield _checked("outputs", where, (read - output) / scale, tolerance, "")


def _checked(what: str, where: str, difference: Tensor, tolerance: float, note: str) -> Check:
    error = float(difference.abs().max()) if difference.numel() else 0.0
    # A comparison with NaN is false: what is not a number does not pass.
    passed = error <= tolerance
    return Check(what=what, where=where, passed=passed, error=error, tolerance=tolerance, note=note)


def _held(attention: TruncatedAttention, rows: Tensor) -> Tensor:
    """Return where a weight was kept, `(head, row, key)`."""
    index = attention.index.expand(attention.weights.shape)[..., rows.to(attention.device), :].cpu()
    held = torch.zeros(*index.shape[:-1], attention.keys + 1, dtype=torch.bool)
    places = torch.where(index < 0, attention.keys, index)
    return held.scatter(-1, places, True)[..., :-1]


def _read(attention: AttentionOperator, value: Tensor, rows: Tensor) -> Tensor | None:
    """Return what the operator reads of the values, by its own product; None if it lost weights."""
    if isinstance(attention, TruncatedAttention) and attention.partial:
        return None
    value = value.repeat_interleave(attention.heads // value.shape[0], dim=0)
    read = attention.apply(value.to(attention.device))
    return read.index_select(-2, rows.to(read.device)).detach().cpu().double()


def _types(attention: AttentionOperator) -> set[torch.dtype]:
    try:
        parts = attention.parts()[0]
    except OperatorError:
        return {attention.dtype}
    return {part.dtype for part in parts.values() if part.is_floating_point()}
