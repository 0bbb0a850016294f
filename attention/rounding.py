"""`rounded`: an operator whose factors are kept in a narrower type."""

import torch

from attnscope.attention.operator import AttentionOperator
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.windowed import WindowedAttention

__all__ = ["rounded"]

_EXACT = ("log_normalizer", "lost")
"""Numbers per row, which cost little and say what rows sum to."""


def rounded(attention: AttentionOperator, dtype: torch.dtype) -> AttentionOperator:
    """Return the operator of factors rounded to a type.

    Softmax attention takes its normalizers anew, so that rows of rounded factors are distributions
    still; its biases and learned sinks, which are small, stay as they are.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> half = rounded(DenseAttention(torch.tensor([[[0.1, 0.9]]])), torch.bfloat16)
        >>> half.dense().dtype, [round(float(weight), 4) for weight in half.dense().flatten()]
        (torch.bfloat16, [0.1001, 0.8984])
    """
    if isinstance(attention, SoftmaxAttention):
        return SoftmaxAttention(
            attention.query.to(dtype),
            attention.key.to(dtype),
            attention.scale,
            mask=attention.mask,
            bias=attention.bias,
            softcap=attention.softcap,
            sinks=attention.sinks,
            query_axis=attention.query_axis,
            key_axis=attention.key_axis,
        )
    if isinstance(attention, WindowedAttention):
        return WindowedAttention(
            rounded(attention.inner, dtype),
            attention.query_index,
            attention.key_index,
            attention.queries,
            attention.keys,
            offset=attention.offset,
            query_axis=attention.query_axis,
            key_axis=attention.key_axis,
        )
    tensors, facts = attention.parts()
    narrowed = {
        name: part.to(dtype) if part.is_floating_point() and not name.endswith(_EXACT) else part
        for name, part in tensors.items()
    }
    return type(attention).from_parts(narrowed, facts)
