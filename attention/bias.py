"""Additive score biases that are known tile by tile: ALiBi, relative positions, any array."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["BIASES", "AlibiBias", "Bias", "DenseBias", "RelativeBias"]


@runtime_checkable
class Bias(Protocol):
    """Numbers added to the scores before the softmax."""

    def at(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the bias `(*batch, head or 1, ...)` for index arrays that broadcast together."""
        ...

    def transpose(self) -> "Bias":
        """Return the bias with queries and keys exchanged."""
        ...

    def scaled(self, factor: float) -> "Bias":
        """Return the bias times a number."""
        ...

    def select_heads(self, heads: Tensor) -> "Bias":
        """Return the bias of some heads."""
        ...

    def item(self, index: int) -> "Bias":
        """Return the bias of one item of the batch, cut from the graph."""
        ...

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what `from_parts` builds it from."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseBias:
    """A bias given entry by entry, as in Swin's windows.

    Attributes:
        values: Added scores; a head axis of 1 is shared by all heads.
    """

    values: Float[Tensor, "*batch #head query key"]

    def at(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return stored entries."""
        return self.values[..., query, key]

    def transpose(self) -> "DenseBias":
        """Return the transposed array."""
        return DenseBias(self.values.mT)

    def scaled(self, factor: float) -> "DenseBias":
        """Return the array times a number."""
        return DenseBias(self.values * factor)

    def select_heads(self, heads: Tensor) -> "DenseBias":
        """Return the arrays of some heads."""
        return (
            self if self.values.shape[-3] == 1 else DenseBias(self.values.index_select(-3, heads))
        )

    def item(self, index: int) -> "DenseBias":
        """Return the array of one item of the batch."""
        values = self.values.detach()
        return DenseBias(values if values.ndim == 3 else values[index if len(values) > 1 else 0])

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the array."""
        return {"values": self.values}, {}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "DenseBias":
        """Return the bias of a stored array."""
        return cls(tensors["values"])


@dataclass(frozen=True, slots=True, eq=False)
class AlibiBias:
    """A penalty per head that grows with distance: `slope_h (position of key - position of query)`.

    Press et al. 2021, arXiv:2108.12409, section 3. Transposing turns the sign of the slopes.

    Attributes:
        slopes: One slope per head.
        offset: Key index at the position of query 0.
    """

    slopes: Float[Tensor, " head"]
    offset: int = 0

    def at(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the penalties at chosen queries and keys."""
        slopes = self.slopes.to(torch.promote_types(self.slopes.dtype, torch.float32))
        distance = (key - query - self.offset).to(slopes.dtype)
        return slopes.view(-1, *[1] * distance.ndim) * distance

    def transpose(self) -> "AlibiBias":
        """Return the penalty seen from the keys."""
        return AlibiBias(-self.slopes, -self.offset)

    def scaled(self, factor: float) -> "AlibiBias":
        """Return the penalty times a number."""
        return AlibiBias(self.slopes * factor, self.offset)

    def select_heads(self, heads: Tensor) -> "AlibiBias":
        """Return the slopes of some heads."""
        return AlibiBias(self.slopes.index_select(0, heads), self.offset)

    def item(self, index: int) -> "AlibiBias":
        """Return the same slopes: every item has them."""
        return AlibiBias(self.slopes.detach(), self.offset)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the slopes and the offset."""
        return {"slopes": self.slopes}, {"offset": self.offset}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "AlibiBias":
        """Return the bias of stored slopes."""
        return cls(tensors["slopes"], facts["offset"])


@dataclass(frozen=True, slots=True, eq=False)
class RelativeBias:
    """A bias by signed distance alone, as in T5: a Toeplitz matrix by its diagonals.

    Distances beyond either end of the table read the number at that end.

    Attributes:
        table: Bias by distance, `table[h, zero + (key - query)]`.
        zero: Where distance 0 stands in the table.
    """

    table: Float[Tensor, "#head distance"]
    zero: int

    def at(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the bias at chosen queries and keys."""
        return self.table[:, (self.zero + key - query).clamp(0, self.table.shape[-1] - 1)]

    def transpose(self) -> "RelativeBias":
        """Return the table read in the other direction."""
        return RelativeBias(self.table.flip(-1), self.table.shape[-1] - 1 - self.zero)

    def scaled(self, factor: float) -> "RelativeBias":
        """Return the table times a number."""
        return RelativeBias(self.table * factor, self.zero)

    def select_heads(self, heads: Tensor) -> "RelativeBias":
        """Return the tables of some heads."""
        return (
            self
            if self.table.shape[0] == 1
            else RelativeBias(self.table.index_select(0, heads), self.zero)
        )

    def item(self, index: int) -> "RelativeBias":
        """Return the same table: every item has it."""
        return RelativeBias(self.table.detach(), self.zero)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the table and its zero."""
        return {"table": self.table}, {"zero": self.zero}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "RelativeBias":
        """Return the bias of a stored table."""
        return cls(tensors["table"], facts["zero"])


BIASES: dict[str, type[DenseBias] | type[AlibiBias] | type[RelativeBias]] = {
    "DenseBias": DenseBias,
    "AlibiBias": AlibiBias,
    "RelativeBias": RelativeBias,
}
