"""The fused softmax kernels of PyTorch, with their log normalizer, differentiable in both.

`fused_attention` is the only place that knows which kernel runs where. Memory is O(T): the
kernels never hold a map, and neither does the backward pass.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["exponential", "fused_attention", "kernel_width"]

_aten = torch.ops.aten


def fused_attention(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch kv_head key dim"],
    value: Float[Tensor, "batch kv_head key value_dim"],
    *,
    scale: float,
    causal: bool = False,
    additive: Float[Tensor, "#batch #head query key"] | None = None,
) -> tuple[Float[Tensor, "batch head query value_dim"], Float[Tensor, "batch head query"]]:
    """Return softmax attention's output and the log of its denominator.

    A query whose keys are all hidden reads zeros, and its log normalizer is -inf. Query heads may
    outnumber key heads; nothing is repeated in memory on a CPU. Gradients flow to query, key and
    value through both results, not to `additive`.

    Args:
        query: Queries.
        key: Keys.
        value: Values, of any width.
        scale: Factor of the scores.
        causal: Query `t` sees keys `0..t` (top-left aligned, as the kernels do it).
        additive: Added to the scores; -inf hides.
    """
    width = query.shape[-1] if query.shape[-1] >= value.shape[-1] else kernel_width(value.shape[-1])
    query, key, padded = (_widen(part, width) for part in (query, key, value))
    if additive is not None:
        additive = _in_rows(additive.to(_additive_type(query)))
    attend = _Fused.apply if torch.is_grad_enabled() else _kernel
    output, log_normalizer = attend(query, key, padded, additive, scale, causal)
    if additive is not None:
        log_normalizer = _mark_empty_rows(log_normalizer, additive)
    return output[..., : value.shape[-1]], log_normalizer


def exponential(
    scores: Float[Tensor, "*rows key"], log_normalizer: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows key"]:
    """Return `exp(s - lse)`, the entries of the map; a row without keys is zeros."""
    empty = log_normalizer == -torch.inf
    return (scores - log_normalizer.masked_fill(empty, 0.0).unsqueeze(-1)).exp()


def kernel_width(width: int) -> int:
    """Return the next multiple of 8: unaligned rows cost the kernels more than the padding."""
    return -(-width // 8) * 8


def _widen(part: Tensor, width: int) -> Tensor:
    return _in_rows(part if part.shape[-1] == width else pad(part, (0, width - part.shape[-1])))


def _in_rows(part: Tensor) -> Tensor:
    # The kernels take a row's numbers to lie side by side, and read others' where they do not.
    return part if part.stride(-1) == 1 else part.contiguous()


def _additive_type(query: Tensor) -> torch.dtype:
    # In 16 bits a distance of 300 is no longer exact; the CPU kernel takes float32 beside them.
    reduced = query.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if reduced and query.device.type == "cpu" else query.dtype


def _mark_empty_rows(log_normalizer: Tensor, additive: Tensor) -> Tensor:
    # The CPU kernel reports 0 for a row without keys, which would read as one key with score 0.
    empty = (additive == -torch.inf).all(-1)
    return log_normalizer.masked_fill(empty, -torch.inf)


class _Fused(torch.autograd.Function):
    """One kernel call whose second output has a gradient too.

    The kernels' backward pass knows only the output's gradient. It subtracts `rowsum(dO * O)` from
    dL/dA, and dL/dlse enters the score gradient at just that place with the opposite sign. So one
    more column, with value 0, output `-dlse` and output gradient 1, carries it through the kernel.
    """

    @staticmethod
    def forward(  # noqa: PLR0913 - autograd passes positions
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        additive: Tensor | None,
        scale: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor]:
        output, log_normalizer = _kernel(query, key, value, additive, scale, causal)
        ctx.save_for_backward(query, key, value, additive, output, log_normalizer)
        ctx.scale, ctx.causal = scale, causal
        ctx.set_materialize_grads(False)
        return output, log_normalizer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        query, key, value, additive, output, log_normalizer = ctx.saved_tensors
        output_gradient, normalizer_gradient = gradients
        width = query.shape[-1]
        if output_gradient is None:
            output_gradient = torch.zeros_like(output)
        if normalizer_gradient is not None:
            extra = normalizer_gradient.unsqueeze(-1).to(output.dtype)
            query, key, value = (pad(part, (0, 1)) for part in (query, key, value))
            output = torch.cat([output, -extra], dim=-1)
            output_gradient = torch.cat([output_gradient, torch.ones_like(extra)], dim=-1)
        grads = _kernel_backward(
            output_gradient,
            (query, key, value, additive),
            (output, log_normalizer),
            ctx.scale,
            ctx.causal,
        )
        return *(gradient[..., :width] for gradient in grads), None, None, None


def _kernel(
    query: Tensor, key: Tensor, value: Tensor, additive: Tensor | None, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    if query.device.type == "cpu":
        return _aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=additive, scale=scale
        )
    heads = query.shape[1]
    key, value = _repeat_heads(key, heads), _repeat_heads(value, heads)
    if query.dtype == torch.float64:
        return _math(query, key, value, additive, scale, causal)
    return _device_kernel(query, key, value, additive, scale, causal)


def _device_kernel(
    query: Tensor, key: Tensor, value: Tensor, additive: Tensor | None, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """Return the same from a GPU's kernels, which want rows of whole 16 bytes."""
    width, length = query.shape[-1], query.shape[2]
    reduced = query.dtype in (torch.float16, torch.bfloat16) and width <= 256
    corner = (
        not causal or length == key.shape[2]
    )  # the flash kernel aligns its triangle bottom-right
    query, key, value = (pad(part, (0, -width % 8)) for part in (query, key, value))
    if additive is None and reduced and corner:
        results = _aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scale
        )
        return results[0][..., :width], results[1][..., :length]
    added = None if additive is None else _aligned(additive, query, key)
    results = _aten._scaled_dot_product_efficient_attention(
        query, key, value, added, True, 0.0, causal, scale=scale
    )
    output = results[0][..., :width]
    if additive is not None:  # nobody promises zeros for a row without keys
        output = output.masked_fill((additive == -torch.inf).all(-1, keepdim=True), 0.0)
    return output, results[1][..., :length]


def _aligned(additive: Tensor, query: Tensor, key: Tensor) -> Tensor:
    padded = pad(additive, (0, -additive.shape[-1] % 16))[..., : additive.shape[-1]]
    return padded.expand(*query.shape[:3], key.shape[2])


def _math(
    query: Tensor, key: Tensor, value: Tensor, additive: Tensor | None, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """Return the same by blocks of rows, where no kernel takes the type (float64 on a GPU)."""
    outputs, normalizers = [], []
    for start in range(0, query.shape[2], 128):
        scores = _scores(query, key, additive, slice(start, start + 128), scale, causal)
        log_normalizer = scores.logsumexp(-1)
        outputs.append(exponential(scores, log_normalizer) @ value)
        normalizers.append(log_normalizer)
    return torch.cat(outputs, dim=-2), torch.cat(normalizers, dim=-1)


def _scores(
    query: Tensor, key: Tensor, additive: Tensor | None, rows: slice, scale: float, causal: bool
) -> Tensor:
    scores = query[:, :, rows] @ key.mT * scale
    if additive is not None:
        scores = scores + (additive if additive.shape[-2] == 1 else additive[:, :, rows])
    if causal:
        position = torch.arange(query.shape[2], device=query.device)[rows, None]
        scores = scores.masked_fill(
            torch.arange(key.shape[2], device=query.device) > position, -torch.inf
        )
    return scores


def _kernel_backward(
    output_gradient: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    results: tuple[Tensor, Tensor],
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value, additive = inputs
    if query.device.type == "cpu":
        return _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            output_gradient.contiguous(),
            query,
            key,
            value,
            *results,
            0.0,
            causal,
            attn_mask=additive,
            scale=scale,
        )
    return _math_backward(output_gradient, inputs, results, scale, causal)


def _math_backward(
    output_gradient: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    results: tuple[Tensor, Tensor],
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by blocks of rows, where we do not call a kernel's own backward."""
    additive, log_normalizer = inputs[3], results[1]
    heads, kv_heads, dtype = inputs[0].shape[1], inputs[1].shape[1], inputs[0].dtype
    precise = torch.promote_types(dtype, torch.float32)
    query, key, value, output, output_gradient = (
        _repeat_heads(part, heads).to(precise)
        for part in (*inputs[:3], results[0], output_gradient)
    )
    query_gradient = torch.empty_like(query)
    key_gradient, value_gradient = torch.zeros_like(key), torch.zeros_like(value)
    for start in range(0, query.shape[2], 128):
        rows = slice(start, start + 128)
        scores = _scores(query, key, additive, rows, scale, causal)
        pattern = exponential(scores, log_normalizer[:, :, rows])
        incoming = output_gradient[:, :, rows]
        inner = incoming @ value.mT - (incoming * output[:, :, rows]).sum(-1, keepdim=True)
        score_gradient = pattern * inner * scale
        query_gradient[:, :, rows] = score_gradient @ key
        key_gradient += score_gradient.mT @ query[:, :, rows]
        value_gradient += pattern.mT @ incoming
    grads = query_gradient, _sum_heads(key_gradient, kv_heads), _sum_heads(value_gradient, kv_heads)
    return grads[0].to(dtype), grads[1].to(dtype), grads[2].to(dtype)


def _repeat_heads(part: Tensor, heads: int) -> Tensor:
    return part if part.shape[1] == heads else part.repeat_interleave(heads // part.shape[1], dim=1)


def _sum_heads(gradient: Tensor, kv_heads: int) -> Tensor:
    return gradient.unflatten(1, (kv_heads, -1)).sum(2)
