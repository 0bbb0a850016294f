"""Factors in a narrower type."""

import pytest
import torch

from attnscope.attention import (
    AlibiBias,
    DenseAttention,
    Mask,
    SoftmaxAttention,
    WindowedAttention,
    rounded,
)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_softmax_rows_stay_distributions_and_rules_stay(dtype):
    torch.manual_seed(0)
    query, key = torch.randn(4, 9, 8), torch.randn(2, 9, 8)
    attention = SoftmaxAttention(
        query, key, 0.3, mask=Mask(before=3, after=0), bias=AlibiBias(torch.rand(4)), softcap=9.0
    )
    narrow = rounded(attention, dtype)
    assert narrow.query.dtype == narrow.key.dtype == dtype
    expected = SoftmaxAttention(
        query.to(dtype).float(), key.to(dtype).float(), 0.3,
        mask=attention.mask, bias=attention.bias, softcap=9.0,
    )  # fmt: skip
    torch.testing.assert_close(narrow.dense(), expected.dense(), atol=1e-6, rtol=1e-5)
    error = (narrow.dense() - attention.dense()).abs().max()
    assert 0 < error < 0.02


def test_windows_and_maps_are_rounded_inside():
    windows = torch.arange(8).reshape(2, 4)
    inner = SoftmaxAttention(*torch.randn(2, 2, 3, 4, 8), causal=False)
    attention = WindowedAttention(inner, windows, windows, 8, 8, offset=0)
    narrow = rounded(attention, torch.bfloat16)
    assert narrow.inner.query.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.dense(), attention.dense(), atol=0.03, rtol=0)
    dense = rounded(DenseAttention(torch.rand(1, 3, 3).softmax(-1)), torch.float16)
    assert dense.pattern.dtype == torch.float16
    assert dense.stochastic
