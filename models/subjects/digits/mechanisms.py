"""The mechanisms that the classifier is trained with, each from its file in `models/`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.models.factorization import FactorizedAttention
from attnscope.models.halo import HaloAttention, HaloBlocks
from attnscope.models.inline_attention import InLineAttention
from attnscope.models.l2vit import LinearAttention
from attnscope.models.large_kernel import LargeKernelAttention
from attnscope.models.neighborhood import NeighborhoodAttention
from attnscope.models.self_attention import SelfAttention
from attnscope.models.strip import StripAttention
from attnscope.models.super_token import SuperTokenAttention
from attnscope.models.uniformer import LocalAttention

__all__ = ["MECHANISMS", "Builder"]

Grid = tuple[int, int]
Builder = Callable[[int, int, Grid], nn.Module]
"""Takes width, heads and grid, returns what maps `(batch, patch, width)` to the same."""


class _GivenGrid(nn.Module):
    """Tells a module of tokens how the patches lie."""

    def __init__(self, module: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.module, self.grid = module, grid

    def forward(
        self, features: Float[Tensor, "batch patch width"]
    ) -> Float[Tensor, "batch patch width"]:
        return self.module(features, self.grid)


class _OnMap(_GivenGrid):
    """Lays patches out as a feature map, for modules in the manner of convolutions."""

    def forward(
        self, features: Float[Tensor, "batch patch width"]
    ) -> Float[Tensor, "batch patch width"]:
        rows, columns = self.grid
        laid = rearrange(
            features,
            "batch (row column) width -> batch width row column",
            row=rows,
            column=columns,
        )
        return rearrange(self.module(laid), "batch width row column -> batch (row column) width")


class _WidthLast(_OnMap):
    """Lays patches out as a feature map whose last axis is the width."""

    def forward(
        self, features: Float[Tensor, "batch patch width"]
    ) -> Float[Tensor, "batch patch width"]:
        laid = rearrange(
            features, "batch (row column) width -> batch row column width", row=self.grid[0]
        )
        return rearrange(self.module(laid), "batch row column width -> batch (row column) width")


MECHANISMS: Mapping[str, Builder] = MappingProxyType(
    {
        "softmax": lambda width, heads, grid: _GivenGrid(SelfAttention(width, heads), grid),
        "neighborhood": lambda width, heads, grid: _WidthLast(
            NeighborhoodAttention(width, heads, (5, 5)), grid
        ),
        "halo": lambda width, heads, grid: _OnMap(
            HaloAttention(width, width, HaloBlocks(size=4, halo=2), heads), grid
        ),
        "factorized": lambda width, heads, grid: _GivenGrid(
            FactorizedAttention(width, heads, 2), grid
        ),
        "super_token": lambda width, heads, grid: _OnMap(
            SuperTokenAttention(width, heads, 2), grid
        ),
        "strip": lambda width, heads, grid: _OnMap(StripAttention(width, heads, 2), grid),
        "linear": lambda width, heads, grid: _GivenGrid(LinearAttention(width, heads), grid),
        "inline": lambda width, heads, grid: _GivenGrid(InLineAttention(width, heads), grid),
        "convolution": lambda width, heads, grid: _OnMap(LocalAttention(width), grid),
        "large_kernel": lambda width, heads, grid: _OnMap(LargeKernelAttention(width), grid),
    }
)
"""What mixes patches, by name; all take the same width and heads where they have any."""
