"""`fai`: future attention influence, how much later tokens keep reading a token."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import (
    Rows,
    chosen_rows,
    distances,
    precise,
    require_positions,
    row_shares,
)

__all__ = ["fai", "fai_of_band"]


def fai(
    attention: AttentionOperator,
    near: int = 10,
    far: int | None = 50,
    queries: Rows | None = None,
) -> Float[Tensor, "*batch head key"]:
    """Return the future attention influence (FAI) of each key.

    ``FAI_s = mean of A_ts over t in T(s)``, ``T(s) = {t in queries : s + near <= t <= s + far}``:
    the attention that a token receives from the queries of a horizon behind it. 0 when none of
    them reads it, 1 when they read nothing else. NaN where T(s) is empty, as for the last ``near``
    tokens (our reading: undefined, so that such tokens are never selected).

    Memory is O(T far) for a bounded horizon and O(T near) for an open one.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        near: First distance of the horizon; 0 counts a token's reading of itself.
        far: Last distance of the horizon; None reaches to the last query.
        queries: Rows that may read, usually the response; by default all.

    Raises:
        MetricError: The horizon is empty, or the attention is no distribution along one sequence.

    Reference: Li et al. 2025, arXiv:2510.13554, definition 4.2 and equation 10; horizon 10 to 50 in
        the first version, 10 to 100 in the revision (section 5.3.1), open in its analysis
        (appendix A.1). There it is taken of the mean map of the global heads; it is linear in the
        map, so the mean over heads may follow.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> [round(float(x), 4) for x in fai(A, near=1, far=2)[0]]  # (0.5 + 0.2) / 2, 0.3 / 1, none
        [0.35, 0.3, nan]
    """
    if near < 0 or (far is not None and far < near):
        raise MetricError(f"fai horizon runs from {near} to {far}; it needs 0 <= near <= far")
    offset = require_positions(attention, "fai")
    row_shares(attention, "fai")
    rows = chosen_rows(attention, queries)
    last = max(0, attention.queries - 1 + offset)
    if far is not None:
        band = attention.band(min(far, last) + 1)
        return fai_of_band(band, rows, near=near, keys=attention.keys, offset=offset, far=far)
    received = _received_to_end(attention, rows, near, offset)
    return _mean_received(received, _count_readers(rows, attention.keys, offset, (near, last)))


def fai_of_band(
    band: Float[Tensor, "*batch head query width"],
    rows: Bool[Tensor, "*batch #head query"],
    *,
    near: int,
    far: int,
    keys: int,
    offset: int,
) -> Float[Tensor, "*batch head key"]:
    """Return FAI from a band that holds every distance of the horizon that occurs.

    Args:
        band: Attention by distance, `A[t, t - d]`; wider than the horizon is allowed.
        rows: Queries that may read.
        near: First distance of the horizon.
        far: Last distance of the horizon.
        keys: Number of keys.
        offset: Key index at which query 0 stands.
    """
    received = _by_key(band[..., : far + 1], rows, keys, offset)[..., near:].sum(-1)
    return _mean_received(received, _count_readers(rows, keys, offset, (near, far)))


def _mean_received(received: Tensor, readers: Int[Tensor, "..."]) -> Tensor:
    return torch.where(readers > 0, received / readers, torch.nan)


def _by_key(
    band: Tensor, rows: Tensor, keys: int, offset: int
) -> Float[Tensor, "*batch head {keys} width"]:
    """Return the band by key: entry [s, d] is what the query d behind key s gives it."""
    allowed = precise(band).masked_fill(~rows.unsqueeze(-1), 0)
    width = band.shape[-1]
    by_position = pad(allowed, (0, 0, offset, keys + width - 1 - band.shape[-2] - offset))
    *batch, step, unit = by_position.stride()
    return by_position.as_strided((*band.shape[:-2], keys, width), (*batch, step, step + unit))


def _count_readers(
    rows: Bool[Tensor, "*batch #head query"], keys: int, offset: int, horizon: tuple[int, int]
) -> Int[Tensor, "*batch #head {keys}"]:
    """Return how many chosen rows stand in the horizon of each key."""
    before = pad(rows.long().cumsum(-1), (1, 0))
    key = torch.arange(keys, device=rows.device) - offset
    first, last = horizon
    start, stop = (key + edge for edge in (first, last + 1))
    end = rows.shape[-1]
    return before[..., stop.clamp(0, end)] - before[..., start.clamp(0, end)]


def _received_to_end(
    attention: AttentionOperator, rows: Tensor, near: int, offset: int
) -> Float[Tensor, "*batch head key"]:
    """Return what each key receives from the rows at distance `near` and more."""
    if not attention.causal:
        return _received_by_blocks(attention, rows, near, offset)
    weights = rows.expand(attention.shape[:-1]).to(attention.dtype).unsqueeze(-1)
    received = precise(attention.apply_transpose(weights)).squeeze(-1)
    if near == 0:
        return received
    closer = _by_key(attention.band(near), rows, attention.keys, offset).sum(-1)
    return (received - closer).clamp_min(0)


def _received_by_blocks(
    attention: AttentionOperator, rows: Tensor, near: int, offset: int
) -> Float[Tensor, "*batch head key"]:
    """Return the same where queries may read ahead, so that column sums would hold too much."""
    received: Tensor | float = 0.0
    for block, tile in attention.blocks():
        readers = (distances(attention, block, offset) >= near) & rows[..., block].unsqueeze(-1)
        received = received + torch.where(readers, precise(tile), 0).sum(-2)
    return torch.as_tensor(received)
