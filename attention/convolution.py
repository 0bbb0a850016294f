"""`ConvolutionAttention`: static local mixing, the same learned weights around every position."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, alike, indices, tile_indices

__all__ = ["ConvolutionAttention"]

_CONVOLUTIONS = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}


class ConvolutionAttention(AttentionOperator):
    """`A_tj = kernel[j - t]` on a grid: a depthwise convolution with zero padding, as a map.

    The kernel's middle falls on the query, or with `causal` its end. Entries have any sign and no
    normalization, and rows at a border are shorter. O(T w) for a window of w positions.

    Args:
        kernel: One kernel per head, `(*batch, head, *window)`, a window axis per axis of the grid.
            A static kernel may be expanded over the batch.
        grid: The lengths of the grid; positions stand in raster order (the last axis runs fastest).
        dilation: Step between neighbors within the window.
        causal: The window ends at the query; on a grid of one axis.
        query_axis: What a position is.
        key_axis: The same.

    Raises:
        OperatorError: The window does not fit the grid's axes or has no middle.

    Example:
        >>> A = ConvolutionAttention(torch.tensor([[1.0, 2.0, 3.0]]), [3])
        >>> A.dense().tolist()
        [[[2.0, 3.0, 0.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0]]]
        >>> ConvolutionAttention(torch.tensor([[1.0, 2.0]]), [3], causal=True).dense().tolist()
        [[[2.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]]
    """

    def __init__(
        self,
        kernel: Float[Tensor, "*batch_head_window"],
        grid: Sequence[int],
        *,
        dilation: int = 1,
        causal: bool = False,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        self.kernel, self.grid, self.dilation = kernel, tuple(grid), dilation
        self.causal, self.query_axis, self.key_axis = causal, query_axis, key_axis
        self._check()
        positions = math.prod(self.grid)
        self.window = tuple(kernel.shape[-len(self.grid) :])
        self.shape = torch.Size((*kernel.shape[: -len(self.grid)], positions, positions))
        self.dtype, self.device = torch.promote_types(kernel.dtype, torch.float32), kernel.device
        self.stochastic, self.signed = False, bool((kernel.detach() < 0).any())

    def _check(self) -> None:
        axes, shape = len(self.grid), tuple(self.kernel.shape)
        if axes not in _CONVOLUTIONS or len(shape) <= axes or min(*self.grid, self.dilation) < 1:
            raise OperatorError(
                f"kernel {shape}, grid {self.grid} and dilation {self.dilation} do not fit; needed "
                "are a kernel (*batch, head, *window), a grid of 1 to 3 axes, one for each axis of "
                "the window, and a dilation of at least 1"
            )
        if self.causal and axes != 1:
            raise OperatorError(f"causal is for a grid of one axis; this one is {self.grid}")
        if not self.causal and not all(size % 2 for size in shape[-axes:]):
            raise OperatorError(f"window {shape[-axes:]} has no middle; its lengths must be odd")
        if self.query_axis != self.key_axis:
            raise OperatorError(
                f"queries and keys are the same positions; they cannot be {self.query_axis} "
                f"and {self.key_axis}"
            )

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return the depthwise convolution of the values."""
        axes, batch = len(self.grid), len(self.shape) - 3
        # A kernel that all items share runs over them as one batch of planes; where each item has
        # its own, every head of every item is a group of channels, and the width is the batch.
        shared = not any(self.kernel.stride()[:batch])
        kernel, values = alike(self.kernel[(0,) * batch] if shared else self.kernel, values)
        lead = torch.broadcast_shapes(values.shape[:-2], self.shape[:-2])
        planes = values.expand(*lead, -1, -1).movedim(-1, -3 if shared else 0)
        groups = kernel.shape[:-axes].numel()
        reach = [self.dilation * (size - 1) // (1 if self.causal else 2) for size in self.window]
        mixed = _CONVOLUTIONS[axes](
            planes.reshape(-1, groups, *self.grid),
            kernel.reshape(groups, 1, *self.window),
            padding=reach,
            dilation=self.dilation,
            groups=groups,
        )
        mixed = mixed.flatten(2)[..., : self.queries]  # a causal window also slides past the end
        return mixed.reshape(planes.shape).movedim(-3 if shared else 0, -1)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U`: a Toeplitz map is transposed by reading it backwards on both sides."""
        return self.apply(weights.flip(-2)).flip(-2)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return kernel entries by the steps from each query to each key."""
        chosen = tile_indices(self.shape, queries, keys, limit=limit)
        slots = torch.zeros(len(chosen[0]), len(chosen[1]), dtype=torch.long)
        inside = torch.ones_like(slots, dtype=torch.bool)
        places = [torch.unravel_index(positions, self.grid) for positions in chosen]
        for size, query, key in zip(self.window, *places, strict=True):
            step = key - query.unsqueeze(-1)
            slot = step // self.dilation + (size - 1 if self.causal else size // 2)
            inside &= (step % self.dilation == 0) & (slot >= 0) & (slot < size)
            slots = slots * size + slot
        slots, inside = slots.to(self.device), inside.to(self.device)
        entries = self.kernel.to(self.dtype).flatten(-len(self.grid))
        return torch.where(inside, entries[..., slots.masked_fill(~inside, 0)], 0.0)

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j A_tj^p`: the row mass of the kernel's powers."""
        if self.signed or exponent <= 0:
            return super().power_sum(exponent)
        return self._with(self.kernel.to(self.dtype).pow(exponent)).row_mass()

    def absolute_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j |A_tj|`: the row mass of the kernel's sizes."""
        return self._with(self.kernel.to(self.dtype).abs()).row_mass()

    def select_heads(self, heads: Index) -> "ConvolutionAttention":
        """Return the kernels of some heads."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        return self._with(self.kernel.index_select(-1 - len(self.grid), chosen))

    def item(self, index: int) -> "ConvolutionAttention":
        """Return the kernels of one item of the batch, cut from the graph.

        Raises:
            OperatorError: There is no batch axis.
        """
        self._require_batch()
        return self._with(self.kernel[index].detach())

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the kernels and how they lie on the grid."""
        return {"kernel": self.kernel}, {"grid": list(self.grid)} | self._options()

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "ConvolutionAttention":
        """Return the operator of stored kernels."""
        return cls(tensors["kernel"], **facts)

    def _options(self) -> dict[str, Any]:
        names = ("dilation", "causal", "query_axis", "key_axis")
        return {name: getattr(self, name) for name in names}

    def _with(self, kernel: Tensor) -> "ConvolutionAttention":
        return ConvolutionAttention(kernel, self.grid, **self._options())
