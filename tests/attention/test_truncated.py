"""The largest weights of each row: what is exact, what is bounded, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import (
    DenseAttention,
    IndexedAttention,
    KernelAttention,
    OperatorError,
    SoftmaxAttention,
    TruncatedAttention,
    key_position,
)


def whole(heads: int = 2, length: int = 12, sinks: bool = False) -> SoftmaxAttention:
    generator = torch.Generator().manual_seed(length)
    query, key = torch.randn(2, heads, length, 8, generator=generator) * 2
    return SoftmaxAttention(query, key, sinks=torch.zeros(heads) if sinks else None)


@pytest.mark.parametrize("sinks", [False, True])
def test_kept_weights_are_the_largest_and_the_rest_is_what_is_lost(sinks):
    attention = whole(sinks=sinks)
    dense = attention.dense()
    truncated = TruncatedAttention.of(attention, 3)
    threshold = dense.topk(3, dim=-1).values[..., -1:]
    expected = torch.where(dense >= threshold, dense, 0.0)
    torch.testing.assert_close(truncated.dense(), expected, atol=0, rtol=0)
    torch.testing.assert_close(truncated.lost, (dense - expected).sum(-1))
    torch.testing.assert_close(truncated.row_mass(), attention.row_mass())
    assert truncated.stochastic is not sinks
    assert truncated.causal
    assert bool((truncated.lost[:, :3] == 0).all())  # rows of three keys lose nothing


def test_everything_that_needs_lost_weights_is_refused():
    truncated = TruncatedAttention.of(whole(), 3)
    values = torch.ones(2, 12, 1)
    asked = (
        truncated.entropy,
        lambda: truncated.power_sum(2.0),
        lambda: truncated.apply(values),
        lambda: truncated.apply_transpose(values),
        lambda: truncated.band(3),
        truncated.column_mass,
        lambda: truncated.key_moment(key_position),
        lambda: list(truncated.blocks()),
        truncated.log_normalizer,
    )
    for ask in asked:
        with pytest.raises(OperatorError):
            ask()
    with pytest.raises(OperatorError, match=r"only the 3 largest weights .* is gone"):
        truncated.entropy()


def test_where_nothing_is_lost_everything_is_exact():
    attention = whole()
    truncated = TruncatedAttention.of(attention, 99)
    assert not truncated.partial
    torch.testing.assert_close(truncated.entropy(), attention.entropy(), atol=1e-5, rtol=0)
    torch.testing.assert_close(truncated.band(4), attention.band(4))
    torch.testing.assert_close(truncated.column_mass(), attention.column_mass())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 14), st.integers(2, 14), st.integers(0, 9), st.booleans())
def test_bounds_hold_what_the_whole_rows_say(count, length, seed, causal):
    torch.manual_seed(seed)
    query, key = torch.randn(2, 2, length, 4, dtype=torch.float64) * 3
    attention = SoftmaxAttention(query, key, causal=causal)
    truncated = TruncatedAttention.of(attention, count)
    for (low, high), exact in (
        (truncated.entropy_bounds(), attention.entropy()),
        (truncated.moment_bounds(key_position), attention.key_moment(key_position)),
    ):
        assert bool((low <= exact + 1e-6).all())
        assert bool((exact <= high + 1e-6).all())
    if count >= length:
        torch.testing.assert_close(low, high)


def test_parts_heads_and_items_come_back():
    truncated = TruncatedAttention.of(whole(), 3, dtype=torch.float16)
    tensors, facts = truncated.parts()
    assert tensors["index"].dtype == torch.int32
    again = TruncatedAttention.from_parts(tensors, facts)
    assert torch.equal(again.dense(), truncated.dense())
    assert torch.equal(again.lost, truncated.lost)
    assert (again.causal, again.stochastic, again.offset) == (True, True, 0)
    chosen = truncated.select_heads([1])
    assert torch.equal(chosen.dense(), truncated.dense()[1:])
    assert torch.equal(chosen.lost, truncated.lost[1:])
    batched = TruncatedAttention.of(
        DenseAttention(torch.rand(2, 1, 3, 3).softmax(-1), offset=None), 2
    )
    assert torch.equal(batched.item(1).dense(), batched.dense()[1])
    assert isinstance(truncated.kept(), IndexedAttention)
    assert not truncated.kept().stochastic


def test_signed_weights_and_empty_counts_are_refused():
    signed = KernelAttention(torch.randn(1, 4, 2), torch.randn(1, 4, 2), causal=True)
    with pytest.raises(OperatorError, match="nowhere negative"):
        TruncatedAttention.of(signed, 2)
    with pytest.raises(OperatorError, match="positive count"):
        TruncatedAttention.of(whole(), 0)
    with pytest.raises(OperatorError, match="one number per row"):
        TruncatedAttention(
            torch.ones(1, 2, 1),
            torch.zeros(2, 1, dtype=torch.int64),
            2,
            -torch.ones(1, 2),
            stochastic=True,
            causal=False,
        )
