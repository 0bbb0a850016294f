"""Riders: key functions as more columns of values, averaged by a call that is made anyway."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.key_function import KeyFunction

__all__ = ["columns_of", "moment_of"]


def columns_of(
    rider: KeyFunction, keys: int, like: Float[Tensor, "batch value_head key dim"]
) -> Float[Tensor, "batch value_head key split"]:
    """Return a rider as columns of values, divided by the number of keys.

    In 16 bits three columns hold the rounded number, the rest, and the rest of that, so that only
    the kernel's own rounding of its output is left.
    """
    column = rider.values(keys).to(like.device) / max(keys, 1)
    pieces = []
    for _ in range(1 if like.dtype in (torch.float32, torch.float64) else 3):
        pieces.append(column.to(like.dtype))
        column = column - pieces[-1].to(column.dtype)
    return torch.stack(pieces, dim=-1).expand(*like.shape[:2], keys, len(pieces))


def moment_of(
    output: Float[Tensor, "batch head query split"], keys: int, dtype: torch.dtype
) -> Float[Tensor, "batch head query"]:
    """Return the rider's mean under each row from what the kernel read of its columns."""
    return output.to(dtype).sum(-1) * max(keys, 1)
