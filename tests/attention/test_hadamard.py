"""`HadamardAttention` against the product of two matrices, entry by entry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import attnscope.attention.hadamard
from attnscope.attention import (
    DenseAttention,
    HadamardAttention,
    Mask,
    OperatorError,
    SoftmaxAttention,
)
from tests.attention.oracle import band_of
from tests.attention.strategies import normal


def corrected(
    batch: tuple[int, ...], queries: int, keys: int, mask: Mask | None
) -> tuple[HadamardAttention, Tensor]:
    """Return a corrected softmax and its matrix."""
    softmax = SoftmaxAttention(
        normal(0, *batch, 2, queries, 3), normal(1, *batch, 1, keys, 3), mask=mask
    )
    left, right = normal(2, *batch, 2, queries, 4), normal(3, *batch, 2, keys, 4)
    factor = torch.einsum("...td,...jd->...tj", left, right)
    return HadamardAttention(softmax, left, right), softmax.dense() * factor


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([(), (2,), (2, 1)]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([None, Mask(), Mask(after=0, before=2), Mask(after=0, query_origin=-3)]),
)
def test_every_method_is_that_of_the_product(
    batch: tuple[int, ...], sizes: tuple[int, int], mask: Mask | None
) -> None:
    queries, keys = sizes
    with pytest.MonkeyPatch.context() as patch:  # several blocks of few rows
        patch.setattr(attnscope.attention.hadamard, "block_length", lambda shape: 7)
        attention, pattern = corrected(batch, queries, keys, mask)
        values, weights = normal(4, *batch, 1, keys, 2), normal(5, *batch, 2, queries, 2)
        for actual, expected in [
            (attention.dense(), pattern),
            (attention.apply(values), pattern @ values),
            (attention.apply_transpose(weights), pattern.mT @ weights),
            (attention.row_mass(), pattern.sum(-1)),
            (attention.column_mass(), pattern.sum(-2)),
            (attention.absolute_mass(), pattern.abs().sum(-1)),
            (attention.tile([-1], [0]), pattern[..., -1:, :1]),
            (attention.select_heads([1]).dense(), pattern[..., 1:, :, :]),
        ]:
            torch.testing.assert_close(actual, expected)
    if attention.offset is not None:
        torch.testing.assert_close(attention.band(3), band_of(pattern, 3, attention.offset))
    assert (attention.signed, attention.stochastic) == (True, False)


def test_factors_of_one_sign_leave_it_unsigned() -> None:
    dense = DenseAttention(normal(0, 2, 3, 3).softmax(-1))
    attention = HadamardAttention(dense, normal(1, 2, 3, 2).exp(), normal(2, 2, 3, 2).exp())
    assert not attention.signed
    expected = attention.dense() / attention.dense().sum(-1, keepdim=True)
    torch.testing.assert_close(attention.normalized().dense(), expected)
    with pytest.raises(OperatorError, match="needs rows that are distributions"):
        attention.entropy()


@pytest.mark.parametrize("step", [2, 99])
def test_gradients_pass_through_blocks(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attnscope.attention.hadamard, "block_length", lambda shape: step)
    factors = [normal(seed, 1, 3, 2).requires_grad_() for seed in range(5)]

    def read(*factors: Tensor) -> tuple[Tensor, ...]:
        query, key, left, right, values = factors
        attention = HadamardAttention(SoftmaxAttention(query, key), left, right)
        return attention.apply(values), attention.apply_transpose(values), attention.row_mass()

    assert torch.autograd.gradcheck(read, factors)


def test_stored_parts_build_it_again() -> None:
    attention, pattern = corrected((), 6, 6, None)
    again = HadamardAttention.from_parts(*attention.parts())
    torch.testing.assert_close(again.dense(), pattern)
    assert again.causal


def test_an_item_is_one_of_the_batch_outside_the_graph() -> None:
    attention, pattern = corrected((2,), 4, 6, Mask())
    attention.left.requires_grad_()
    item = attention.item(1)
    torch.testing.assert_close(item.dense(), pattern[1])
    assert not item.left.requires_grad
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


def test_a_long_sequence_never_has_a_map() -> None:
    length = 12_000
    ones = torch.ones(1, length, 1)
    attention = HadamardAttention(SoftmaxAttention(0 * ones, ones), 2 * ones, ones)
    with pytest.raises(OperatorError, match="over the limit"):
        attention.dense()
    torch.testing.assert_close(attention.row_mass(), 2 * ones.squeeze(-1))
    assert attention.rows([3])[0, 0, :5].tolist() == [0.5, 0.5, 0.5, 0.5, 0.0]


@pytest.mark.parametrize(("left", "right"), [((1, 3, 2), (1, 4, 3)), ((1, 3, 2), (1, 3, 2))])
def test_factors_that_do_not_fit_are_refused(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    build = HadamardAttention.__init__.__wrapped__  # past the shape check of the tests
    dense = DenseAttention(torch.ones(1, 3, 4))
    with pytest.raises(OperatorError, match=r"need the shapes \(1, 3, 'dim'\)"):
        build(object.__new__(HadamardAttention), dense, torch.zeros(left), torch.zeros(right))
