"""Riders: key functions as more columns of values, averaged by a call that is made anyway."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.fused import kernel_width
from attnscope.attention.key_function import KeyFunction

__all__ = ["moments_of", "with_columns"]


def with_columns(
    value: Float[Tensor, "batch value_head key dim"], riders: Sequence[KeyFunction]
) -> Float[Tensor, "batch value_head key loaded"]:
    """Return the values with the riders' columns behind them, as wide as a kernel takes them.

    Each is divided by the number of keys. In 16 bits it is three columns: the rounded number, the
    rest, and the rest of that, so that only the kernel's own rounding of its output is left.
    """
    if not riders:
        return value
    keys, pieces = value.shape[2], []
    for rider in riders:
        column = rider.values(keys).to(value.device) / max(keys, 1)
        for _ in range(_split(value.dtype)):
            pieces.append(column.to(value.dtype))
            column = column - pieces[-1].to(column.dtype)
    # Zeros here, or the kernel's padding would be a second copy of all values.
    width = value.shape[-1] + len(pieces)
    pieces += [torch.zeros_like(pieces[0])] * (kernel_width(width) - width)
    columns = torch.stack(pieces, dim=-1).expand(*value.shape[:3], len(pieces))
    return torch.cat([value, columns], dim=-1)


def moments_of(
    read: Float[Tensor, "batch head query columns"],
    riders: Sequence[KeyFunction],
    value: Float[Tensor, "batch value_head key dim"],
) -> dict[str, Float[Tensor, "batch head query"]]:
    """Return each rider's mean under each row, by its name, from what was read of its columns."""
    split, keys = _split(value.dtype), max(value.shape[2], 1)
    precise = read.to(torch.promote_types(read.dtype, torch.float32))
    return {
        rider.name: precise[..., place * split : (place + 1) * split].sum(-1) * keys
        for place, rider in enumerate(riders)
    }


def _split(dtype: torch.dtype) -> int:
    return 1 if dtype in (torch.float32, torch.float64) else 3
