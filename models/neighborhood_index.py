"""`Neighborhood`: which keys each position of a 1-, 2- or 3-D grid attends to.

Along one axis of length L with window K, stride S and dilation D, query q belongs to the group
`g = q mod D` of `n = ceil((L - g) / D)` positions and is its member `i = q div D`. Its leader and
keys (members of the group, with `left = K div 2`, `right = K - 1 - left`) are

    leader = min((i div S) S + S div 2, n - 1)      keys [c - left, c + right],
                                                    c = clamp(leader, left, n - 1 - right)
    causal: leader = min((i div S) S + S - 1, n-1)  keys [max(leader - K + 1, 0), i]

At a border the window is pushed inwards, so that every query has exactly K keys; causal windows are
cut off instead. Several axes multiply. K = L is full attention, S = K blocked (window) attention.

Reference: Hassani et al. 2025, arXiv:2504.16922 (strides), and 2022, arXiv:2204.07143 and
2209.15001 (windows, dilation).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

__all__ = ["Neighborhood", "NeighborhoodAxis"]


@dataclass(frozen=True, slots=True)
class NeighborhoodAxis:
    """The neighborhoods along one axis.

    Raises:
        ValueError: The stride exceeds the window, or a dilated window the axis.

    Example:
        >>> NeighborhoodAxis(5, 3).keys().tolist()
        [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
        >>> NeighborhoodAxis(4, 2, causal=True).keys().tolist()
        [[0, -1], [0, 1], [1, 2], [2, 3]]
    """

    length: int
    window: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no neighborhoods."""
        if not 1 <= self.stride <= self.window:
            raise ValueError(
                f"stride {self.stride} does not fit a window of {self.window}: "
                "it is at least 1 and at most the window"
            )
        if self.dilation < 1 or self.window * self.dilation > self.length:
            raise ValueError(
                f"a window of {self.window} with dilation {self.dilation} spans "
                f"{self.window * self.dilation} positions; the axis has {self.length}"
            )

    def span(
        self, member: Int[Tensor, " query"], size: Int[Tensor, " query"] | int
    ) -> tuple[Int[Tensor, " query"], Int[Tensor, " query"]]:
        """Return the first and the last key of queries, all counted within a group of this size."""
        size = torch.as_tensor(size)
        block = member // self.stride * self.stride
        if self.causal:
            leader = torch.minimum(block + self.stride - 1, size - 1)
            return (leader - self.window + 1).clamp_min(0), member
        left = self.window // 2
        leader = torch.minimum(block + self.stride // 2, size - 1)
        center = torch.minimum(leader.clamp_min(left), size - self.window + left)
        return center - left, center - left + self.window - 1

    def keys(self) -> Int[Tensor, "query slot"]:
        """Return the keys of each query in rising order, then -1 where a window is cut off."""
        query = torch.arange(self.length)
        group = query % self.dilation
        size = (self.length - group + self.dilation - 1) // self.dilation
        first, last = self.span(query // self.dilation, size)
        members = first[:, None] + torch.arange(self.window)
        keys = group[:, None] + members * self.dilation
        return keys.masked_fill(members > last[:, None], -1)

    def distances(self) -> Int[Tensor, "query slot"]:
        """Return how many members of its group a key stands behind its query, plus window - 1.

        This is the row of a relative position table, from 0 to 2 (window - 1).
        """
        steps = (self.keys() - torch.arange(self.length)[:, None]) // self.dilation
        return (steps + self.window - 1).clamp_min(0)


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """The neighborhoods of a grid: one axis after the other, positions in raster order.

    Example:
        >>> grid = Neighborhood.of((3, 4), (1, 3))
        >>> grid.keys()[4:6].tolist()
        [[4, 5, 6], [4, 5, 6]]
        >>> grid.positions, grid.slots
        (12, 3)
    """

    axes: tuple[NeighborhoodAxis, ...]

    @classmethod
    def of(
        cls,
        grid: Sequence[int],
        window: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        causal: bool | Sequence[bool] = False,
    ) -> "Neighborhood":
        """Return the neighborhoods of a grid; one number serves all axes.

        Raises:
            ValueError: There are not as many numbers as axes, or an axis has no such window.
        """
        rules = [_per_axis(rule, len(grid)) for rule in (window, stride, dilation, causal)]
        axes = zip(grid, *rules, strict=True)
        return cls(tuple(NeighborhoodAxis(*axis, causal=bool(last)) for *axis, last in axes))

    @property
    def grid(self) -> tuple[int, ...]:
        """Return the length of each axis."""
        return tuple(axis.length for axis in self.axes)

    @property
    def positions(self) -> int:
        """Return the number of queries, which is that of the keys."""
        return prod(self.grid)

    @property
    def slots(self) -> int:
        """Return how many keys a query has at most."""
        return prod(axis.window for axis in self.axes)

    def keys(self) -> Int[Tensor, "query slot"]:
        """Return the keys of each query, -1 where a causal window is cut off."""
        tables = [(axis.keys(), axis.length) for axis in self.axes]
        return reduce(_crossed, tables)[0]

    def distances(self) -> Int[Tensor, "query slot"]:
        """Return the row of a relative position table, flattened over the axes."""
        tables = [(axis.distances(), 2 * axis.window - 1) for axis in self.axes]
        return reduce(_crossed, tables)[0]


def _per_axis(rule: int | Sequence[int], axes: int) -> Sequence[int]:
    if isinstance(rule, Sequence):
        if len(rule) != axes:
            raise ValueError(f"{tuple(rule)} has {len(rule)} numbers; the grid has {axes} axes")
        return rule
    return (rule,) * axes


def _crossed(left: tuple[Tensor, int], right: tuple[Tensor, int]) -> tuple[Tensor, int]:
    """Return the table of two axes together; a slot is empty where it is so on either axis."""
    (outer, outer_size), (inner, inner_size) = left, right
    outer, inner = outer[:, None, :, None], inner[None, :, None, :]
    table = torch.where((outer < 0) | (inner < 0), -1, outer * inner_size + inner)
    merged = rearrange(table, "query position slot place -> (query position) (slot place)")
    return merged, outer_size * inner_size
