"""Which layers of a policy have softmax attention, and what is around the policy."""

from typing import Any

from torch import nn

from attnscope.credit.errors import CreditError

__all__ = ["softmax_layers", "unwrapped"]


def unwrapped(policy: nn.Module) -> nn.Module:
    """Return the model inside of parallel wrappers and adapters; adapters stay active in it."""
    inner: Any = policy
    while isinstance(getattr(inner, "module", None), nn.Module):
        inner = inner.module
    found = getattr(inner, "get_base_model", None)
    return inner if found is None else found()


def softmax_layers(policy: nn.Module) -> tuple[int, ...]:
    """Return the numbers of the layers that have softmax attention, without a hybrid's others.

    Raises:
        CreditError: The policy has no configuration that says how many layers there are.
    """
    config: Any = getattr(unwrapped(policy), "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(text, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise CreditError(
            f"{type(policy).__name__} has no configuration with num_hidden_layers; credit from "
            "attention needs a model of transformers"
        )
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * count
    return tuple(number for number, kind in enumerate(kinds) if kind in _SOFTMAX)


_SOFTMAX = ("attention", "full_attention", "sliding_attention")
