"""`PositiveAttention` against the matrix it stands for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnscope.attention.positive_part
from attnscope.attention import (
    DenseAttention,
    HadamardAttention,
    Mask,
    OperatorError,
    OuterAttention,
    PositiveAttention,
    SoftmaxAttention,
)
from tests.attention.agreement import assert_agrees
from tests.attention.strategies import normal


def test_the_case_worked_by_hand() -> None:
    pattern = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]])
    gradient = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
    product = HadamardAttention(DenseAttention(pattern), gradient, torch.eye(2)[None])
    expected = torch.tensor([[[0.5, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(PositiveAttention(product).dense(), expected)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([(), (2,), (2, 1)]),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.sampled_from([None, Mask(), Mask(after=0, before=2), Mask(after=0, query_origin=-3)]),
)
def test_every_method_is_that_of_the_matrix(
    batch: tuple[int, ...], sizes: tuple[int, int], mask: Mask | None
) -> None:
    queries, keys = sizes
    with pytest.MonkeyPatch.context() as patch:  # several blocks of few rows
        patch.setattr(attnscope.attention.positive_part, "block_length", lambda shape: 7)
        softmax = SoftmaxAttention(
            normal(0, *batch, 2, queries, 3), normal(1, *batch, 1, keys, 3), mask=mask
        )
        left, right = normal(2, *batch, 2, queries, 4), normal(3, *batch, 2, keys, 4)
        signed = HadamardAttention(softmax, left, right)
        positive = PositiveAttention(signed)
        assert_agrees(positive, signed.dense().clamp_min(0))
    assert (positive.signed, positive.stochastic) == (False, False)


def test_what_is_positive_already_stays() -> None:
    dense = DenseAttention(normal(0, 2, 3, 3).softmax(-1))
    positive = PositiveAttention(dense)
    torch.testing.assert_close(positive.dense(), dense.dense())
    assert positive.stochastic


def test_stored_parts_build_it_again_and_an_item_is_one_of_the_batch() -> None:
    outer = OuterAttention(normal(0, 2, 2, 4, 3), normal(1, 2, 1, 5, 3), offset=None)
    positive = PositiveAttention(outer)
    expected = positive.dense()
    torch.testing.assert_close(PositiveAttention.from_parts(*positive.parts()).dense(), expected)
    torch.testing.assert_close(positive.item(1).dense(), expected[1])
    assert positive.offset is None


def test_gradients_pass() -> None:
    factors = [normal(seed, 1, 3, 2).requires_grad_() for seed in range(3)]

    def read(left: torch.Tensor, right: torch.Tensor, values: torch.Tensor) -> tuple:
        positive = PositiveAttention(OuterAttention(left, right))
        return positive.apply(values), positive.apply_transpose(values)

    assert torch.autograd.gradcheck(read, factors)


def test_a_long_sequence_never_has_a_map() -> None:
    length = 12_000
    ones = torch.ones(1, length, 1)
    signs = ones.clone()
    signs[:, ::2] = -1
    positive = PositiveAttention(HadamardAttention(SoftmaxAttention(0 * ones, ones), ones, signs))
    with pytest.raises(OperatorError, match="over the limit"):
        positive.dense()
    assert positive.rows([3])[0, 0, :5].tolist() == [0.0, 0.25, 0.0, 0.25, 0.0]
