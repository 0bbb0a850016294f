"""Tiles of a matrix that is never whole: indices, size limits, blocks and diagonals."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.errors import OperatorError

__all__ = [
    "TILE_LIMIT",
    "Index",
    "alike",
    "block_length",
    "check_tile_size",
    "indices",
    "skew",
    "tile_indices",
]

Index = int | slice | Sequence[int] | Tensor

TILE_LIMIT = 2**27
"""Most elements of `dense()` and `tile()` unless a caller raises the limit (512 MiB in float32)."""

_BLOCK_ELEMENTS = 2**22
"""Elements of the largest temporary of a blocked pass (16 MiB in float32)."""


def skew(
    tile: Float[Tensor, "*batch query key"], *, shift: int, width: int
) -> Float[Tensor, "*batch query {width}"]:
    """Return the last `width` diagonals of a tile; row `i` ends at column `i + width - 1 + shift`.

    Column 0 of the tile stands at position `-shift` of the untruncated tile; what the tile does
    not reach is 0. The result counts distance upwards: entry `d` is the column `d` before the last.
    """
    rows = tile.shape[-2]
    if tile.shape[-1] == 0:
        return tile.new_zeros(*tile.shape[:-1], width)
    full = rows + width - 1
    left = -shift
    padded = torch.nn.functional.pad(tile, (left, full - left - tile.shape[-1]))
    size, stride = padded.shape, padded.stride()
    diagonals = padded.as_strided(
        (*size[:-2], rows, width), (*stride[:-2], stride[-2] + stride[-1], stride[-1])
    )
    return diagonals.flip(-1)


def block_length(shape: Sequence[int]) -> int:
    """Return how many rows of an operator of this shape a blocked pass may hold at once."""
    per_row = max(1, torch.Size([*shape[:-2], shape[-1]]).numel())
    return max(16, _BLOCK_ELEMENTS // per_row)


def indices(index: Index, length: int, axis: str) -> Tensor:
    """Return an index as a tensor of non-negative positions.

    Raises:
        OperatorError: A position lies outside the axis.
    """
    if isinstance(index, slice):
        return torch.arange(length)[index]
    chosen = torch.as_tensor(index).reshape(-1).cpu()
    if chosen.dtype == torch.bool and len(chosen) == length:
        return chosen.nonzero().squeeze(-1)
    if chosen.numel() and (chosen.dtype == torch.bool or chosen.is_floating_point()):
        raise OperatorError(
            f"{axis} index is {len(chosen)} numbers of type {chosen.dtype}; give whole positions, "
            f"or true or false for each of {length}"
        )
    outside = chosen[(chosen < -length) | (chosen >= length)]
    if len(outside):
        raise OperatorError(
            f"{axis} {outside.tolist()[:5]} lies outside: this operator has {length}, "
            f"from 0 to {length - 1}"
        )
    return chosen.long() % max(length, 1)


def alike(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors in the wider of their types, so that they can be multiplied."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype), right.to(dtype)


def tile_indices(
    shape: Sequence[int], queries: Index, keys: Index, *, limit: int
) -> tuple[Tensor, Tensor]:
    """Return the chosen queries and keys of an operator of this shape as positions.

    Raises:
        OperatorError: A position lies outside, or the tile has more than `limit` entries.
    """
    chosen = indices(queries, shape[-2], "query"), indices(keys, shape[-1], "key")
    check_tile_size((*shape[:-2], len(chosen[0]), len(chosen[1])), limit)
    return chosen


def check_tile_size(shape: Sequence[int], limit: int) -> None:
    """Refuse a dense block that is too large to be meant.

    Raises:
        OperatorError: The block has more than `limit` entries.
    """
    size = torch.Size(shape).numel()
    if size > limit:
        raise OperatorError(
            f"a dense block of shape {tuple(shape)} has {size:,} entries, over the limit "
            f"of {limit:,}; ask for fewer queries and keys with tile(), for rows(), columns() or "
            "band(), for a functional (apply, apply_transpose, entropy), or pass a higher limit"
        )
