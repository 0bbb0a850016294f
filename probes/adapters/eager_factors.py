"""The factors of an attention, read from the scores that a module handed to its softmax."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention import (
    AlibiBias,
    AttentionOperator,
    Bias,
    DenseBias,
    OperatorError,
    SoftmaxAttention,
)
from attnscope.probes.adapters.eager_ear import Heard, as_it_is
from attnscope.probes.adapters.torch_masks import mask_and_bias

__all__ = ["alibi_bias", "from_scores"]


def from_scores(heard: Heard) -> AttentionOperator:
    """Return the softmax operator whose scores these are, or the map where none is found.

    The scores are taken to be `scale q k`, perhaps soft-capped, plus perhaps a bias of the key
    alone, and hidden where they are as low as their type goes. Whether that is so is for whoever
    has the map to check.
    """
    shape, scores = heard.pattern.shape, heard.scores
    if scores.shape != shape or shape[2] < 3 or heard.query.dtype != heard.key.dtype:
        return as_it_is(heard)
    visible = scores > torch.finfo(scores.dtype).min / 2
    cap = _softcap(heard.module)
    precise, products = scores.detach().float(), heard.products.detach().float()
    if cap is not None:
        precise = cap * torch.atanh((precise / cap).clamp(-1 + 1e-6, 1 - 1e-6))
    precise = precise.masked_fill(~visible, 0)
    scale = _known_number(_slope(products, precise, visible), heard.query.shape[-1])
    rest = (precise - scale * products).masked_fill(~visible, 0)
    crosses = shape[2] != shape[3] or bool(getattr(heard.module, "is_cross_attention", False))
    try:
        return SoftmaxAttention(
            heard.query,
            heard.key,
            scale,
            mask=mask_and_bias(visible, shape)[0],
            bias=_rest_of(rest, 1e-4 * float(1 + precise.abs().max())),
            softcap=cap,
            key_axis="memory" if crosses else "token",
        )
    except OperatorError:  # factors of other shapes than those of a head's queries and keys
        return as_it_is(heard)


def _softcap(module: Any) -> float | None:
    inner = getattr(module, "original_component", None) or module
    return getattr(inner, "attn_logit_softcapping", None)


def _slope(
    products: Tensor, scores: Tensor, visible: Bool[Tensor, "batch head query key"]
) -> float:
    """Return how scores grow with products: neither terms of the key alone nor of the row count."""
    both = visible[:, :, 1:] & visible[:, :, :-1]
    count = both.sum(-1, keepdim=True).clamp_min(1)

    def steps(numbers: Tensor) -> Tensor:
        change = (numbers[:, :, 1:] - numbers[:, :, :-1]).masked_fill(~both, 0).double()
        return (change - change.sum(-1, keepdim=True) / count).masked_fill(~both, 0)

    moved = steps(products)
    return float((moved * steps(scores)).sum() / moved.square().sum().clamp_min(1e-30))


def _known_number(slope: float, width: int) -> float:
    """Return `1 / sqrt(width)` or 1 where that is what was measured."""
    usual = (width**-0.5, 1.0)
    return next((number for number in usual if abs(slope / number - 1) < 1e-3), slope)


def _rest_of(rest: Float[Tensor, "batch head query key"], tolerance: float) -> Bias | None:
    """Return what is added to the products: nothing, or what the last query shows of each key."""
    if float(rest.abs().max()) <= tolerance:
        return None
    return alibi_bias(rest[:, :, -1], rest.shape[2], tolerance=1e-4)


def alibi_bias(
    added: Float[Tensor, "batch head key"], queries: int, *, tolerance: float = 1e-6
) -> Bias:
    """Return a bias of the key alone: by its slopes where it grows evenly, else entry by entry.

    What does not depend on the key is the same for a whole row, and the softmax forgets it. In 16
    bits the library's penalties are rounded far from the line, and are kept as they are.

    Example:
        >>> bias = alibi_bias(torch.tensor([[[0.0, 0.5, 1.0], [0.0, 0.25, 0.5]]]), 3)
        >>> bias.slopes.tolist()
        [0.5, 0.25]
    """
    keys = added.shape[-1]
    line = added[0].to(torch.promote_types(added.dtype, torch.float32))
    slopes = (line[:, -1] - line[:, 0]) / max(keys - 1, 1)
    steps = torch.arange(keys, device=line.device, dtype=line.dtype)
    error = (slopes[:, None] * steps + line[:, :1] - line).abs().max()
    if bool((added == added[:1]).all()) and bool(error <= tolerance * line.abs().max()):
        return AlibiBias(slopes, offset=keys - queries)
    return DenseBias(added.unsqueeze(2).expand(-1, -1, queries, -1))
