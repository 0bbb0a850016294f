"""`FusedNeighborhood`: neighborhood attention whose outputs are computed by the NATTEN package.

NATTEN's kernels return outputs and no weights. Whatever else is asked of the operator (a capture
asks for `item`) comes from the `IndexedAttention` of the same queries and keys, built when it is
first needed: the same map, computed apart, equal to the kernel's up to the kernel's rounding.
"""

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import TILE_LIMIT, AttentionOperator, IndexedAttention, OperatorError
from attnscope.models.neighborhood_index import Neighborhood
from attnscope.models.neighborhood_softmax import neighborhood_pattern

__all__ = ["FusedNeighborhood", "has_fused_kernel", "neighborhood_operator"]

Index = Any


def has_fused_kernel(device: torch.device) -> bool:
    """Return whether NATTEN can compute on this device: CUDA only, where it is installed.

    Example:
        >>> has_fused_kernel(torch.device("cpu"))
        False
    """
    return device.type == "cuda" and find_spec("natten") is not None


class FusedNeighborhood(AttentionOperator):
    """Neighborhood attention by NATTEN's kernels; statistics by the indexed operator.

    Args:
        query: Scaled queries in raster order.
        key: Keys in raster order.
        neighborhood: The grid and its neighborhoods.
    """

    def __init__(
        self,
        query: Float[Tensor, "batch head position dim"],
        key: Float[Tensor, "batch head position dim"],
        neighborhood: Neighborhood,
    ) -> None:
        self.query, self.key, self.neighborhood = query, key, neighborhood
        self.shape = torch.Size((*query.shape[:-1], neighborhood.positions))
        self.dtype, self.device = torch.promote_types(query.dtype, torch.float32), query.device
        self.causal = all(axis.causal for axis in neighborhood.axes)
        self.query_axis = self.key_axis = "patch" if len(neighborhood.axes) > 1 else "token"

    @cached_property
    def indexed(self) -> IndexedAttention:
        """Return the same attention by its weights."""
        return neighborhood_pattern(self.query, self.key, self.neighborhood)

    def apply(
        self, values: Float[Tensor, "batch #head position dim"]
    ) -> Float[Tensor, "batch head position dim"]:
        """Return what the kernel computes; heads may share values."""
        axes = self.neighborhood.axes
        kernel = getattr(import_module("natten"), f"na{len(axes)}d")
        output = kernel(
            *(self._laid_out(factor) for factor in (self.query, self.key, values)),
            kernel_size=tuple(axis.window for axis in axes),
            stride=tuple(axis.stride for axis in axes),
            dilation=tuple(axis.dilation for axis in axes),
            is_causal=tuple(axis.causal for axis in axes),
            scale=1.0,
        )
        return rearrange(
            output.flatten(1, -3), "batch position head dim -> batch head position dim"
        )

    def _laid_out(self, factor: Tensor) -> Tensor:
        """Return a factor as NATTEN takes it, `(batch, *grid, head, dim)`."""
        factor = rearrange(
            factor.expand(-1, self.heads, -1, -1),
            "batch head position dim -> batch position head dim",
        )
        return factor.unflatten(1, self.neighborhood.grid).contiguous()

    def apply_transpose(
        self, weights: Float[Tensor, "batch #head query dim"]
    ) -> Float[Tensor, "batch head key dim"]:
        """Return what each key receives, by the indexed operator."""
        return self.indexed.apply_transpose(weights)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "batch head some_query some_key"]:
        """Return entries of the indexed operator."""
        return self.indexed.tile(queries, keys, limit=limit)

    def select_heads(self, heads: Index) -> IndexedAttention:
        """Return some heads of the indexed operator."""
        return self.indexed.select_heads(heads)

    def item(self, index: int) -> IndexedAttention:
        """Return one item of the batch, as the indexed operator: this is what a probe keeps."""
        part = FusedNeighborhood(
            self.query[index : index + 1].detach(),
            self.key[index : index + 1].detach(),
            self.neighborhood,
        )
        return part.indexed.item(0)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Refuse: an item is stored, which is an `IndexedAttention`."""
        raise OperatorError(f"{self!r} is not stored; store its item(0), an IndexedAttention")

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> NoReturn:
        """Refuse, as `parts` does."""
        raise OperatorError(f"{cls.__name__} is not stored; its items are, as IndexedAttention")


def neighborhood_operator(
    query: Float[Tensor, "batch head position dim"],
    key: Float[Tensor, "batch head position dim"],
    neighborhood: Neighborhood,
) -> FusedNeighborhood | IndexedAttention:
    """Return the attention of scaled queries to their neighborhoods, fused where it can be."""
    if has_fused_kernel(query.device):
        return FusedNeighborhood(query, key, neighborhood)
    return neighborhood_pattern(query, key, neighborhood)
