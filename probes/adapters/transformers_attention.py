"""Models of transformers, seen through the library's own attention seam.

One attention function and its mask function, registered for the time of a capture, serve every
architecture that honours `AttentionInterface`. Whatever the model, the listener is handed an
`AttentionOperator` and the values; the model is handed the operator's own output.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.attention import DenseBias, Mask, SoftmaxAttention
from attnscope.probes.adapters.torch_masks import compact_bias
from attnscope.probes.adapters.transformers_masks import lazy_mask, mask_inside
from attnscope.probes.attention_call import AttentionCall, Listener, Riders

__all__ = ["implementations", "listening", "operator_of"]


_serial = count()


@contextmanager
def listening(model: nn.Module, listener: Listener, riders: Riders) -> Iterator[None]:
    """Route every attention call of a model through `listener` while the context is open.

    The listener returns the output that the model goes on with. On leaving, whatever happened
    inside, the model's configurations and the library's tables are as they were.
    """
    before = implementations(model)
    if not before:
        yield
        return
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # Names with "sdpa" or "flex_attention" in them would trigger those kernels' checks.
    name = f"attnscope_{next(_serial)}"

    def attention_function(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        operator, key_count = operator_of(module, query, key, attention_mask, options)
        value = value[:, :, :key_count]
        output = operator.attend(value, riders(module))
        output = listener(
            AttentionCall(
                module=module,
                attention=operator,
                value=value,
                output=output,
                library="transformers",
                computation="fused kernels" if operator.softcap is None else "a blocked softmax",
            )
        )
        return output.transpose(1, 2).contiguous(), None

    try:
        # Without its own mask function a registered attention would be left unmasked in silence.
        ALL_ATTENTION_FUNCTIONS._global_mapping[name] = attention_function
        ALL_MASK_ATTENTION_FUNCTIONS._global_mapping[name] = lazy_mask
        for config, _ in before:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop(name, None)
        ALL_MASK_ATTENTION_FUNCTIONS._global_mapping.pop(name, None)


def operator_of(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    options: dict[str, Any],
) -> tuple[SoftmaxAttention, int]:
    """Return the operator that an attention call describes, and how many of its keys exist."""
    mask, bias = _mask_of(module, query, key, attention_mask, options)
    keys = key.shape[2]
    if mask.is_plain_causal and keys > query.shape[2] > 1:  # the unused end of a preallocated cache
        keys = query.shape[2]
    position_bias = options.get("position_bias")
    if position_bias is not None:
        own = compact_bias(position_bias.detach()[..., :keys])
        bias = own if bias is None else DenseBias(own.values + bias.values)  # type: ignore[union-attr]
    sinks = options.get("s_aux")
    attention = SoftmaxAttention(
        query,
        key[:, :, :keys],
        options.get("scaling"),
        mask=mask,
        bias=bias,
        softcap=options.get("softcap"),
        sinks=None if sinks is None else sinks.reshape(-1).to(query.dtype),
    )
    return attention, keys


def _mask_of(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    options: dict[str, Any],
) -> tuple[Mask, DenseBias | None]:
    if attention_mask is None:
        is_causal = options.get("is_causal")
        is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        return Mask(after=0 if is_causal and query.shape[2] > 1 else None), None
    inside = mask_inside(attention_mask, key.shape[2])
    if isinstance(inside, Mask):
        return inside, None
    if inside.dtype == torch.bool:
        return Mask(allowed=_without_heads(inside)), None
    hidden = inside <= torch.finfo(inside.dtype).min / 2
    plain = bool((inside.masked_fill(hidden, 0) == 0).all())
    if hidden.shape[1] == 1:
        allowed = Mask(allowed=_without_heads(~hidden)) if bool(hidden.any()) else Mask()
        return allowed, None if plain else DenseBias(inside.masked_fill(hidden, 0))
    return Mask(), DenseBias(inside)


def _without_heads(mask: Tensor) -> Tensor:
    return mask[:, 0]


def implementations(model: nn.Module) -> list[tuple[Any, Any]]:
    """Return every configuration inside a model with the implementation that it asks for."""
    found: dict[int, tuple[Any, Any]] = {}
    waiting: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    while waiting:
        config = waiting.pop()
        if id(config) in found or not hasattr(config, "_attn_implementation_internal"):
            continue
        found[id(config)] = (config, config._attn_implementation_internal)
        names = getattr(config, "sub_configs", {})
        waiting.extend(sub for name in names if (sub := getattr(config, name, None)) is not None)
    return list(found.values())
