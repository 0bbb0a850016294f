"""`KeyFunction`: a fixed number per key, whose mean under each row of a map is wanted."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["KeyFunction", "key_one", "key_position"]


@dataclass(frozen=True, slots=True)
class KeyFunction:
    """A fixed number per key, whose mean under each row is wanted.

    Named, so that an operator that already averaged it beside the model's own values (in the same
    fused call) can answer `key_moment` from memory.

    Attributes:
        name: The identity under which results are remembered.
        values: Maps the number of keys to one number per key.
    """

    name: str
    values: Callable[[int], Float[Tensor, " key"]]


def _positions(keys: int) -> Float[Tensor, " key"]:
    return torch.arange(keys, dtype=torch.float64)


key_position = KeyFunction("key_position", _positions)
"""The index of the key: its moment is the mean attended position."""


def _ones(keys: int) -> Float[Tensor, " key"]:
    return torch.ones(keys, dtype=torch.float64)


key_one = KeyFunction("key_one", _ones)
"""The number 1: its moment is the mass of the row."""
