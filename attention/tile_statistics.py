"""Sums along the rows and columns of a softmax map, within a range of distances, by tiles.

Given queries, keys and the log normalizer, which the fused call of the forward pass leaves behind,
every entry is `exp(s_tj - lse_t)` on its own. So one pass over tiles gives all sums along rows and
another all along columns, with O(T) memory, grouped query heads as they are, and no tile touched
that causality, the window or the range of distances hides.

On a GPU the passes are kernels of our own (`triton_statistics`), where `serves` says so; elsewhere
they are blocks of plain PyTorch. `SoftmaxAttention` asks `serves` first, because on a processor the
identities of fused calls are faster than either.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.fused import exponential
from attnscope.attention.scores import Scores
from attnscope.attention.tile import block_length

__all__ = [
    "RowMoments",
    "column_sums",
    "has_kernels",
    "mean_position",
    "row_moments",
    "serves",
    "tile_band",
]

Distances = tuple[int, int]
"""The nearest and the furthest distance of the entries that count, both included."""

_TYPES = (torch.bfloat16, torch.float16, torch.float32)
_WIDEST = 256
"""Numbers of a query of which a tile still fits a GPU's shared memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowMoments:
    """Sums along each row over the entries `A_tj` of a range of distances `d`; 0 for no entry.

    Attributes:
        mass: `sum_j A_tj`.
        distance: `sum_j A_tj d`, negative where keys ahead outweigh.
        entropy: `-sum_j A_tj ln A_tj`, in nats; over all distances the entropy of the row.
    """

    mass: Float[Tensor, "batch head query"]
    distance: Float[Tensor, "batch head query"]
    entropy: Float[Tensor, "batch head query"]


@cache
def has_kernels(device: torch.device) -> bool:
    """Return whether our kernels run on this device.

    That is a GPU of compute capability 8 or more (Ampere, 2020), beside which Triton is installed.

    Example:
        >>> has_kernels(torch.device("cpu"))
        False
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device)[0] >= 8


def serves(scores: Scores, *others: Tensor) -> bool:
    """Return whether our kernels can take these scores, no gradient being wanted of anything.

    They take scores that are products alone under a mask of distances (causal, sliding window, or
    none), in 16 or 32 bits, up to 256 numbers a query, where the device `has_kernels`.
    """
    tensors = (scores.query, scores.key, *others)
    tracked = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    taken = scores.query.dtype in _TYPES and scores.query.shape[-1] <= _WIDEST
    fits = taken and scores.is_plain and scores.mask.is_by_distance and not tracked
    return fits and has_kernels(scores.query.device)


def row_moments(
    scores: Scores,
    normalizer: Float[Tensor, "batch head query"],
    distances: Distances | None = None,
) -> RowMoments:
    """Return what each row holds within a range of distances, in one pass over tiles.

    The windowed average attention distance of window W is `W - (W mass - distance)` with the
    moments of distances 0 to W - 1; the mean look-back is `distance` over all of them.

    Args:
        scores: Products of queries and keys under a mask of distances.
        normalizer: `lse_t`, a learned sink included; -inf for a row without keys, which reads 0.
        distances: Nearest and furthest distance that count; by default all that the mask shows.

    Raises:
        OperatorError: The scores are more than products, or the mask more than distances.

    Example:
        >>> from attnscope.attention import Mask
        >>> nothing = torch.zeros(1, 1, 3, 2)
        >>> flat = Scores(query=nothing, key=nothing, scale=1.0, mask=Mask(after=0))
        >>> seen = row_moments(flat, torch.tensor([[[1.0, 2.0, 3.0]]]).log())  # uniform rows
        >>> [round(float(x), 4) for x in seen.distance[0, 0]]  # 0, (1 + 0) / 2, (2 + 1 + 0) / 3
        [0.0, 0.5, 1.0]
        >>> [round(float(x), 4) for x in seen.entropy.exp()[0, 0]]
        [1.0, 2.0, 3.0]
    """
    within = _within(scores, distances)
    if serves(scores, normalizer):
        from attnscope.attention.triton_statistics import launch_row_moments

        return _moments_of(launch_row_moments(scores, normalizer, within))
    moments = normalizer.new_zeros(3, *normalizer.shape)
    for rows, keys, entries in _tiles(scores, normalizer, within):
        apart = _apart(scores, rows, keys).to(entries.dtype)
        logarithm = entries.clamp_min(torch.finfo(entries.dtype).tiny).log()
        sums = entries.sum(-1), (entries * apart).sum(-1), -(entries * logarithm).sum(-1)
        moments[..., rows] = torch.stack(sums).to(moments.dtype)
    return _moments_of(moments)


def column_sums(
    scores: Scores,
    normalizer: Float[Tensor, "batch head query"],
    weights: Float[Tensor, "batch head query"],
    distances: Distances | None = None,
) -> Float[Tensor, "batch head key"]:
    """Return what each key receives within a range of distances, in one pass over tiles.

    `sum_t u_t A_tj` over the queries `t` whose distance to `j` lies in the range: the received mass
    for weights of 1 over all distances; the mass of a horizon (the numerator of future attention
    influence) over distances `near` to `far`, its readers chosen by weights of 0 and 1.

    Args:
        scores: Products of queries and keys under a mask of distances.
        normalizer: `lse_t`, a learned sink included; -inf for a row without keys, which gives 0.
        weights: `u_t`.
        distances: Nearest and furthest distance that count; by default all that the mask shows.

    Raises:
        OperatorError: The scores are more than products, or the mask more than distances.

    Example:
        >>> from attnscope.attention import Mask
        >>> nothing = torch.zeros(1, 1, 3, 2)
        >>> flat = Scores(query=nothing, key=nothing, scale=1.0, mask=Mask(after=0))
        >>> rows = torch.tensor([[[1.0, 2.0, 3.0]]]).log()  # rows of 1, of 1/2, and of 1/3
        >>> ones = torch.ones(1, 1, 3)
        >>> [round(float(x), 4) for x in column_sums(flat, rows, ones)[0, 0]]  # 1 + 1/2 + 1/3, ...
        [1.8333, 0.8333, 0.3333]
        >>> [round(float(x), 4) for x in column_sums(flat, rows, ones, (1, 1))[0, 0]]
        [0.5, 0.3333, 0.0]
    """
    within = _within(scores, distances)
    if serves(scores, normalizer, weights):
        from attnscope.attention.triton_statistics import launch_column_sums

        return launch_column_sums(scores, normalizer, weights, within)
    batch, heads, _, keys = scores.shape
    sums = normalizer.new_zeros(batch, heads, keys)
    for rows, seen, entries in _tiles(scores, normalizer, within):
        weighted = weights[..., rows].unsqueeze(-2).to(entries.dtype) @ entries
        sums[..., seen] += weighted.squeeze(-2).to(sums.dtype)
    return sums


def tile_band(
    scores: Scores, normalizer: Float[Tensor, "batch head query"], width: int
) -> Float[Tensor, "batch head query {width}"]:
    """Return the diagonal band `A[t, t - d]` for `0 <= d < width`, 0 before the first key.

    One launch on a GPU where `serves` says so, blocks of PyTorch's products elsewhere.

    Args:
        scores: The scores, of any kind.
        normalizer: `lse_t`, a learned sink included.
        width: Number of diagonals.
    """
    if serves(scores, normalizer):
        from attnscope.attention.triton_statistics import launch_band

        return launch_band(scores, normalizer, _within(scores, (0, width - 1)), width)
    pieces = (
        (block, exponential(band, normalizer[:, :, block]))
        for block, band in scores.band(width, scores.mask.offset)
    )
    if scores.needs_graph or (torch.is_grad_enabled() and normalizer.requires_grad):
        return torch.cat([piece for _, piece in pieces], dim=2)
    whole = normalizer.new_empty(*normalizer.shape, width)
    for block, piece in pieces:  # kept until the last, they would be the band once more
        whole[:, :, block] = piece
    return whole


def mean_position(
    scores: Scores, normalizer: Float[Tensor, "batch head query"]
) -> Float[Tensor, "batch head query"]:
    """Return `sum_j A_tj j`, the mean attended position: where a query stands, less its distance.

    Args:
        scores: Products of queries and keys under a mask of distances.
        normalizer: `lse_t`, a learned sink included.

    Raises:
        OperatorError: The scores are more than products, or the mask more than distances.
    """
    moments = row_moments(scores, normalizer)
    row = torch.arange(scores.shape[2], device=normalizer.device) + scores.mask.offset
    return moments.mass * row - moments.distance


def _moments_of(sums: Float[Tensor, "3 batch head query"]) -> RowMoments:
    return RowMoments(mass=sums[0], distance=sums[1], entropy=sums[2])


def _within(scores: Scores, distances: Distances | None) -> Distances:
    """Return the distances that are both asked for and shown by the mask."""
    mask = scores.mask
    if not scores.is_plain or not mask.is_by_distance:
        raise OperatorError(
            "statistics by tiles take scores that are products alone, under a mask of distances "
            f"(before, after); these have bias {scores.bias!r}, softcap {scores.softcap} and "
            f"mask {mask!r}"
        )
    everything = scores.shape[2] + scores.shape[3] + abs(mask.offset)
    nearest, furthest = distances or (-everything, everything)
    shown = -everything if mask.after is None else -mask.after
    window = everything if mask.before is None else mask.before
    return max(nearest, shown, -everything), min(furthest, window, everything)


def _apart(scores: Scores, rows: slice, keys: slice) -> Tensor:
    device = scores.query.device
    row = torch.arange(rows.start, rows.stop, device=device) + scores.mask.offset
    return row[:, None] - torch.arange(keys.start, keys.stop, device=device)


def _tiles(
    scores: Scores, normalizer: Tensor, within: Distances
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the entries of blocks of rows, on just the keys that the range of distances reaches."""
    queries, keys = scores.shape[2:]
    step, offset, device = block_length(scores.shape), scores.mask.offset, scores.query.device
    for start in range(0, queries, step):
        rows = slice(start, min(start + step, queries))
        low = min(max(start + offset - within[1], 0), keys)
        seen = slice(low, max(low, min(rows.stop + offset - within[0], keys)))
        tile = scores.tile(
            torch.arange(rows.start, rows.stop, device=device),
            torch.arange(seen.start, seen.stop, device=device),
        )
        apart = _apart(scores, rows, seen)
        hidden = (apart < within[0]) | (apart > within[1])
        entries = exponential(tile, normalizer[..., rows])
        empty = normalizer[..., rows, None] == -torch.inf
        yield rows, seen, entries.masked_fill(hidden | empty, 0.0)
