"""The reference mechanisms as the workbench shows them: one small module each, on a small grid."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

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
from attnscope.models.l2vit import LinearAttention
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
from attnscope.probes import Subject, capture
from attnscope.traces import Trace

__all__ = [
    "GALLERY",
    "SIDE",
    "Mechanism",
    "captured",
    "cost_in_words",
    "drawn",
    "explanation_of",
]

SIDE = 16
"""Rows and columns of the grid on which patterns are shown; a token for every cell."""

_WIDTH, _HEADS = 32, 4
_SEED = 0


class _GivenGrid(nn.Module):
    """A module of patches in raster order, with the square grid that it asks for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor) -> Tensor:
        side = isqrt(features.shape[1])
        return self.module(features, (side, side))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """One entry of the gallery.

    Attributes:
        name: What it is called.
        make: Returns the module, with weights drawn anew.
        features: Returns its input on a grid of so many rows and columns, smooth over the grid, so
            that neighbors are alike.
    """

    name: str
    make: Callable[[], nn.Module]
    features: Callable[[int], Tensor]


def _map(side: int) -> Tensor:
    """Return a smooth feature map, as images are: noise of a quarter of the side, made larger."""
    coarse = torch.randn(1, _WIDTH, side // 4, side // 4)
    return nn.functional.interpolate(coarse, side, mode="bicubic", align_corners=False)


def _patches(side: int) -> Tensor:
    return _map(side).flatten(2).transpose(1, 2)


def _width_last(side: int) -> Tensor:
    return _map(side).permute(0, 2, 3, 1)


def _memory() -> nn.Module:
    return GatedAssociativeMemory(GatedAssociativeMemoryVariant(channels=_WIDTH, slots=16))


GALLERY: tuple[Mechanism, ...] = (
    Mechanism(
        name="Softmax attention",
        make=lambda: _GivenGrid(SelfAttention(_WIDTH, _HEADS)),
        features=_patches,
    ),
    Mechanism(
        name="Neighborhood attention, 5 x 5",
        make=lambda: NeighborhoodAttention(_WIDTH, _HEADS, (5, 5)),
        features=_width_last,
    ),
    Mechanism(
        name="Neighborhood attention, 5 x 5, dilated by 3",
        make=lambda: NeighborhoodAttention(_WIDTH, _HEADS, (5, 5), dilation=(3, 3)),
        features=_width_last,
    ),
    Mechanism(
        name="Halo attention, 4 + 2 x 2",
        make=lambda: HaloAttention(_WIDTH, _WIDTH, HaloBlocks(size=4, halo=2), _HEADS),
        features=_map,
    ),
    Mechanism(
        name="Super token attention, 4 x 4",
        make=lambda: SuperTokenAttention(_WIDTH, _HEADS, 4),
        features=_map,
    ),
    Mechanism(
        name="Factorization self-attention",
        make=lambda: _GivenGrid(FactorizedAttention(_WIDTH, _HEADS // 2, 2)),
        features=_patches,
    ),
    Mechanism(
        name="Strip self-attention, pooled 4 x 4",
        make=lambda: StripAttention(_WIDTH, _HEADS, 4),
        features=_map,
    ),
    Mechanism(
        name="Token aggregation, 16 centers",
        make=lambda: TokenAggregation(_WIDTH, _WIDTH, _WIDTH, _HEADS, centers=16, group=32),
        features=_map,
    ),
    Mechanism(
        name="InLine attention",
        make=lambda: _GivenGrid(InLineAttention(_WIDTH, _HEADS)),
        features=_patches,
    ),
    Mechanism(
        name="Linear attention (L2ViT)",
        make=lambda: _GivenGrid(LinearAttention(_WIDTH, _HEADS)),
        features=_patches,
    ),
    Mechanism(
        name="Local linear attention",
        make=lambda: LocalLinearAttention(_WIDTH, _HEADS),
        features=_patches,
    ),
    Mechanism(
        name="Routing attention, 16 clusters",
        make=lambda: RoutingAttention(
            _WIDTH, _HEADS, dim=_WIDTH // _HEADS, clusters=SIDE, window=SIDE
        ),
        features=_patches,
    ),
    Mechanism(name="Gated associative memory", make=_memory, features=_patches),
    Mechanism(
        name="Hypergraph, 8 hyperedges",
        make=lambda: HypergraphConvolution(_WIDTH, 8, _HEADS),
        features=_map,
    ),
    Mechanism(
        name="Local relation aggregation, 5 x 5 (UniFormer)",
        make=lambda: LocalAttention(_WIDTH),
        features=_map,
    ),
    Mechanism(
        name="Large kernel attention (VAN)",
        make=lambda: LargeKernelAttention(_WIDTH),
        features=_map,
    ),
    Mechanism(name="ULSAM", make=lambda: SubspaceAttention(_WIDTH, _HEADS), features=_map),
    Mechanism(
        name="Efficient local attention (ELA-B)",
        make=lambda: EfficientLocalAttention(_WIDTH, ELA_VARIANTS["base"]),
        features=_map,
    ),
    Mechanism(
        name="Partial channel attention (PATNet)",
        make=lambda: PartialChannelAttention(_WIDTH),
        features=_map,
    ),
)
"""The mechanisms, in the order in which the page lists them."""


def captured(mechanism: Mechanism) -> Trace:
    """Return what a mechanism's module does on its grid, with weights of a fixed seed."""
    module, features = drawn(mechanism, SIDE)
    return capture(Subject(module, name=mechanism.name), {"features": features})


def drawn(mechanism: Mechanism, side: int) -> tuple[nn.Module, Tensor]:
    """Return a mechanism's module and its input on a grid, drawn with a fixed seed."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        return mechanism.make().eval(), mechanism.features(side)


def explanation_of(mechanism: Mechanism) -> str:
    """Return what the mechanism's file says of it: its formula, its cost and its source."""
    made = mechanism.make()
    module = made.module if isinstance(made, _GivenGrid) else made
    return sys.modules[type(module).__module__].__doc__ or ""


def cost_in_words(explanation: str) -> str:
    """Return the sentences of an explanation that state a cost; nothing where none does.

    Example:
        >>> cost_in_words("It is fine. Cost O(N w) for N tokens, against O(N^2). By nobody.")
        'Cost O(N w) for N tokens, against O(N^2).'
    """
    paragraphs = (" ".join(part.split()) for part in explanation.split("\n\n"))
    sentences = (sentence for part in paragraphs for sentence in part.split(". "))
    return " ".join(f"{found.rstrip('.')}." for found in sentences if "O(" in found)
