"""Modules of transformers that compute their own softmax, each with how it is read."""

from typing import Any

import torch
from torch import nn

from attnscope.attention import (
    AttentionOperator,
    SoftmaxAttention,
)
from attnscope.probes.adapters.eager_ear import Heard, Reader
from attnscope.probes.adapters.eager_factors import alibi_bias, from_scores
from attnscope.probes.adapters.torch_masks import mask_and_bias

__all__ = ["FAMILIES", "reader_of"]


def reader_of(module: nn.Module) -> Reader:
    """Return how a module is read: by what its family is known to do, else by its scores."""
    return FAMILIES.get(type(module).__name__, from_scores)


def rotary(heard: Heard) -> AttentionOperator:
    """Return GPT-J's and CodeGen's attention, of rotated queries and keys."""
    scale = 1 / float(heard.module.scale_attn)
    mask, _ = mask_and_bias(heard.arguments.get("attention_mask"), heard.pattern.shape)
    return SoftmaxAttention(*_own_type(heard), scale, mask=mask)


def bloom(heard: Heard) -> AttentionOperator:
    """Return BLOOM's attention, with a penalty of distance per head."""
    module, shape = heard.module, heard.pattern.shape
    added = heard.arguments["alibi"].reshape(*shape[:2], shape[3]) * module.beta
    mask, _ = mask_and_bias(heard.arguments.get("attention_mask"), shape)
    bias = alibi_bias(added, shape[2])
    return SoftmaxAttention(*_own_type(heard), module.inv_norm_factor, mask=mask, bias=bias)


def mpt(heard: Heard) -> AttentionOperator:
    """Return MPT's attention, with a penalty of distance per head."""
    shape, hidden = heard.pattern.shape, heard.arguments.get("attention_mask")
    added = heard.arguments.get("position_bias")
    if added is not None:
        added = added[..., -shape[3] :].reshape(1, shape[1], shape[3])
    mask, _ = mask_and_bias(None if hidden is None else ~hidden, shape)
    bias = None if added is None else alibi_bias(added, shape[2])
    scale = heard.module.softmax_scale
    return SoftmaxAttention(*_own_type(heard), scale, mask=mask, bias=bias)


FAMILIES: dict[str, Reader] = {
    "BloomAttention": bloom,
    "CodeGenAttention": rotary,
    "GPTJAttention": rotary,
    "MptAttention": mpt,
}
"""Families by class."""


def _own_type(heard: Heard) -> tuple[Any, Any]:
    """Return query and key in one type: a module may multiply them in more than its own."""
    dtype = torch.promote_types(heard.query.dtype, heard.key.dtype)
    return heard.query.to(dtype), heard.key.to(dtype)
