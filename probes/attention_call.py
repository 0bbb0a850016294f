"""`AttentionCall`: what an adapter hears of one attention computation of a running model."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import AttentionOperator, KeyFunction

__all__ = ["AttentionCall", "Listener", "Riders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """One attention computation.

    Attributes:
        module: The module that computes it.
        attention: The operator, with the model's batch axis.
        value: The values, `(batch, kv_head, key, dim)`.
        output: The heads' outputs z, before W_O.
        laid_out: Whether the operator's axes and the grids say what queries and keys are. Where
            they do not, the module's path and the model's input do.
        grid: Rows and columns (or frames, rows, columns) of the last queries, in raster order.
        key_grid: The same of the keys.
        library: Whose modules were heard.
        computation: What computed the attention: fused kernels, a blocked softmax, or the model
            itself.
    """

    module: nn.Module
    attention: AttentionOperator
    value: Float[Tensor, "batch kv_head key dim"]
    output: Float[Tensor, "batch head query value_dim"]
    laid_out: bool = False
    grid: tuple[int, ...] | None = None
    key_grid: tuple[int, ...] | None = None
    library: str = ""
    computation: str = ""


Listener = Callable[[AttentionCall], Tensor]
"""Takes a call and returns the output that the model goes on with."""

Riders = Callable[[nn.Module], tuple[KeyFunction, ...]]
"""Which moments of the key should ride on a module's own fused call."""
