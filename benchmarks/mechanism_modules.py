"""One attention module of each mechanism, of one width, over a square grid or a sequence."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from attnscope.models.efficient_local import ELA_VARIANTS, EfficientLocalAttention
from attnscope.models.factorization import FactorizedAttention
from attnscope.models.gated_associative_memory import (
    GatedAssociativeMemory,
    GatedAssociativeMemoryVariant,
)
from attnscope.models.halo import HaloAttention, HaloBlocks
from attnscope.models.hyperace import HypergraphConvolution
from attnscope.models.inline_attention import InLineAttention
from attnscope.models.l2vit import LinearAttention, WindowAttention
from attnscope.models.large_kernel import LargeKernelAttention
from attnscope.models.local_linear import LocalLinearAttention
from attnscope.models.neighborhood import NeighborhoodAttention
from attnscope.models.partial import PartialChannelAttention
from attnscope.models.routing import RoutingAttention
from attnscope.models.self_attention import SelfAttention
from attnscope.models.strip import StripAttention
from attnscope.models.super_token import SuperTokenAttention
from attnscope.models.token_aggregation import TokenAggregation
from attnscope.models.ulsam import SubspaceAttention
from attnscope.models.uniformer import LocalAttention

__all__ = ["MODULES"]

WIDTH, HEADS = 64, 4

Inputs = dict[str, Tensor]


class _GivenGrid(nn.Module):
    def __init__(self, module: nn.Module, side: int) -> None:
        super().__init__()
        self.module, self.side = module, side

    def forward(self, features: Tensor) -> Tensor:
        return self.module(features, (self.side, self.side))


def _tokens(build: Callable[[int], nn.Module]) -> Callable[[int], tuple[nn.Module, Inputs]]:
    """Return a maker of a module of a sequence."""
    return lambda side: (build(side), {"features": torch.randn(1, side * side, WIDTH)})


def _patches(module: Callable[[], nn.Module]) -> Callable[[int], tuple[nn.Module, Inputs]]:
    """Return a maker of a module that takes patches in raster order and their grid."""
    return _tokens(lambda side: _GivenGrid(module(), side))


def _map(build: Callable[[int], nn.Module]) -> Callable[[int], tuple[nn.Module, Inputs]]:
    """Return a maker of a module of a feature map."""
    return lambda side: (build(side), {"features": torch.randn(1, WIDTH, side, side)})


def _width_last(build: Callable[[], nn.Module]) -> Callable[[int], tuple[nn.Module, Inputs]]:
    return lambda side: (build(), {"features": torch.randn(1, side, side, WIDTH)})


MODULES: Mapping[str, Callable[[int], tuple[nn.Module, Inputs]]] = MappingProxyType(
    {
        "softmax attention": _patches(lambda: SelfAttention(WIDTH, HEADS)),
        "neighborhood 7 x 7": _width_last(lambda: NeighborhoodAttention(WIDTH, HEADS, (7, 7))),
        "neighborhood 7 x 7, dilated by 3": _width_last(
            lambda: NeighborhoodAttention(WIDTH, HEADS, (7, 7), dilation=(3, 3))
        ),
        "halo 8 + 2 x 3": _map(
            lambda side: HaloAttention(WIDTH, WIDTH, HaloBlocks(size=8, halo=3), HEADS)
        ),
        "windows 8 x 8": _patches(lambda: WindowAttention(WIDTH, HEADS, 8)),
        "factorization": _patches(lambda: FactorizedAttention(WIDTH, HEADS, 8)),
        "super tokens 8 x 8": _map(lambda side: SuperTokenAttention(WIDTH, HEADS, 8)),
        "strip, pooled 8 x 8": _map(lambda side: StripAttention(WIDTH, HEADS, 8)),
        "token aggregation": _map(
            lambda side: TokenAggregation(WIDTH, WIDTH, WIDTH, HEADS, centers=64, group=128)
        ),
        "hypergraph, 8 edges": _map(lambda side: HypergraphConvolution(WIDTH, 8, HEADS)),
        "linear (L2ViT)": _patches(lambda: LinearAttention(WIDTH, HEADS)),
        "InLine": _patches(lambda: InLineAttention(WIDTH, HEADS)),
        "local relation 5 x 5": _map(lambda side: LocalAttention(WIDTH)),
        "large kernel gate": _map(lambda side: LargeKernelAttention(WIDTH)),
        "ULSAM": _map(lambda side: SubspaceAttention(WIDTH, HEADS)),
        "ELA-B": _map(lambda side: EfficientLocalAttention(WIDTH, ELA_VARIANTS["base"])),
        "partial channel gate": _map(lambda side: PartialChannelAttention(WIDTH)),
        "gated associative memory": _tokens(
            lambda side: GatedAssociativeMemory(
                GatedAssociativeMemoryVariant(channels=WIDTH, slots=64)
            )
        ),
        "routing, sqrt(T) clusters": _tokens(
            lambda side: RoutingAttention(
                WIDTH, HEADS, dim=WIDTH // HEADS, clusters=side, window=side
            )
        ),
        "local linear": _tokens(lambda side: LocalLinearAttention(WIDTH, HEADS)),
    }
)
"""Makers of a module and its inputs for a grid of `side` x `side`, by the mechanism's name."""
