"""`overhearing`: the queries and keys of a running model, which computes as if nobody listened.

A capture routes the model's attention through our own operators. Training must not: the policy's
log-probabilities, its kernels and its gradients are to stay exactly what they are. So the functions
of transformers' `AttentionInterface` are wrapped, called as ever, and heard on the side.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["OverheardCall", "overhearing"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverheardCall:
    """What an attention module is about to compute.

    Attributes:
        module: The attention module.
        query: Queries as the kernel sees them.
        key: Keys, not repeated for grouped heads.
        mask: What the model hides, in the form that its kernel takes; None for the causal rule.
        options: Everything else that the kernel is told.
    """

    module: nn.Module
    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch kv_head key dim"]
    mask: Any
    options: dict[str, Any]


@contextmanager
def overhearing(model: nn.Module, listener: Callable[[OverheardCall], None]) -> Iterator[None]:
    """Let a listener hear every attention call of a model while the context is open.

    Other models of the same process are not heard. On leaving, whatever happened inside, the
    library's table is as it was.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    table = ALL_ATTENTION_FUNCTIONS._global_mapping
    own = {id(module) for module in model.modules()}
    before = {name: table.get(name) for name in _implementations(model)}

    def wrapped(function: Callable[..., Any] | None) -> Callable[..., Any]:
        def attention_function(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
        ) -> Any:
            if id(module) in own:
                mask = rest[0] if rest else options.get("attention_mask")
                listener(
                    OverheardCall(module=module, query=query, key=key, mask=mask, options=options)
                )
            run = _eager_function(module) if function is None else function
            return run(module, query, key, value, *rest, **options)

        return attention_function

    try:
        table.update({name: wrapped(function) for name, function in before.items()})
        yield
    finally:
        for name, function in before.items():
            if function is None:
                table.pop(name, None)
            else:
                table[name] = function


def _implementations(model: nn.Module) -> set[str]:
    """Return the attention implementations that the configurations inside a model name."""
    configs = (getattr(module, "config", None) for module in model.modules())
    names = (getattr(config, "_attn_implementation", None) for config in configs)
    return {name for name in names if isinstance(name, str)}


def _eager_function(module: nn.Module) -> Callable[..., Any]:
    """Return the attention function that a module falls back to, defined beside its class."""
    return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[attr-defined]
