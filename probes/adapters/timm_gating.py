"""The two parts of ConViT's gated positional attention, kept apart instead of as one map."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator, ScaledAttention, SoftmaxAttention, SumAttention

__all__ = ["gated_operator", "place_factors"]


def gated_operator(module: Any, features: Float[Tensor, "batch patch width"]) -> AttentionOperator:
    """Return `normalize[(1 - g) content + g position]` with a gate `g = sigmoid(lambda)` per head.

    The sum's first term is what the head reads by content, the second what it reads by place; both
    are softmaxes by their factors, the second of width 3.

    Args:
        module: A GPSA module of timm.
        features: What enters it, patches alone.

    Reference: d'Ascoli et al. 2021, arXiv:2103.10697, equations 6 and 7.
    """
    shaped = "batch patch (part head dim) -> part batch head patch dim"
    query, key = rearrange(module.qk(features), shaped, part=2, head=module.num_heads)
    content = _of_patches(query, key, module.scale)
    place_query, place_key = place_factors(module.pos_proj.weight, features.shape[1])
    batch = len(features)
    position = _of_patches(
        place_query.expand(batch, -1, -1, -1),
        place_key.expand(batch, module.num_heads, -1, -1),
        1.0,
    )
    gate = torch.sigmoid(module.gating_param)
    mixture = SumAttention((ScaledAttention(content, 1 - gate), ScaledAttention(position, gate)))
    return mixture.normalized()


def place_factors(
    weight: Float[Tensor, "head 3"], patches: int
) -> tuple[Float[Tensor, "head patch 3"], Float[Tensor, "1 patch 3"]]:
    """Return queries and keys whose products are the positional scores, up to a number per row.

    `w . (dx, dy, dx^2 + dy^2)` between patches of a square grid is, but for what does not depend on
    the key, `(w1 - 2 w3 x, w2 - 2 w3 y, w3) . (x', y', x'^2 + y'^2)`; the softmax forgets the rest.
    """
    side = round(patches**0.5)
    # Counted from the middle of the grid, squares stay small and their differences exact.
    steps = torch.arange(side, device=weight.device, dtype=weight.dtype) - (side - 1) / 2
    places = torch.stack([steps.repeat(side), steps.repeat_interleave(side)], dim=-1)
    key = torch.cat([places, places.square().sum(-1, keepdim=True)], dim=-1)
    slopes = weight[:, None, :2] - 2 * weight[:, None, 2:] * places
    query = torch.cat([slopes, weight[:, None, 2:].expand(-1, patches, -1)], dim=-1)
    return query, key.unsqueeze(0)


def _of_patches(query: Tensor, key: Tensor, scale: float) -> SoftmaxAttention:
    return SoftmaxAttention(query, key, scale, causal=False, query_axis="patch", key_axis="patch")
