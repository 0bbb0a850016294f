"""`OuterAttention` against the matrix product it stands for, and the gradient it stands for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import OperatorError, OuterAttention
from tests.attention.oracle import band_of
from tests.attention.strategies import normal


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(), (2,), (2, 2)]),
    st.sampled_from([(1, 1), (1, 3), (2, 2)]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(-3, 3),
)
def test_every_method_is_that_of_the_product(
    batch: tuple[int, ...], heads: tuple[int, int], queries: int, keys: int, offset: int
) -> None:
    kv_heads, group = heads
    left, right = (
        normal(0, *batch, kv_heads * group, queries, 3),
        normal(1, *batch, kv_heads, keys, 3),
    )
    matrix = left @ right.repeat_interleave(group, dim=-3).mT
    outer = OuterAttention(left, right, offset=offset)
    values, weights = normal(2, *batch, 1, keys, 2), normal(3, *batch, kv_heads * group, queries, 2)
    for actual, expected in [
        (outer.dense(), matrix),
        (outer.apply(values), matrix @ values),
        (outer.apply_transpose(weights), matrix.mT @ weights),
        (outer.row_mass(), matrix.sum(-1)),
        (outer.column_mass(), matrix.sum(-2)),
        (outer.absolute_mass(), matrix.abs().sum(-1)),
        (outer.band(4), band_of(matrix, 4, offset)),
        (outer.tile([-1], [0]), matrix[..., -1:, :1]),
        (outer.select_heads([-1]).dense(), matrix[..., -1:, :, :]),
        (outer.T.dense(), matrix.mT),
        (outer.mean_heads().dense(), matrix.mean(-3, keepdim=True)),
    ]:
        torch.testing.assert_close(actual, expected)
    assert (outer.signed, outer.stochastic, outer.causal) == (True, False, False)


def test_it_is_the_gradient_by_the_map() -> None:
    pattern, value = normal(0, 2, 4, 5).softmax(-1).requires_grad_(), normal(1, 2, 5, 3)
    output = pattern @ value
    output.retain_grad()
    output.square().sum().backward()
    torch.testing.assert_close(OuterAttention(output.grad, value).dense(), pattern.grad)


def test_sixteen_bit_factors_are_multiplied_in_thirty_two() -> None:
    left, right = normal(0, 1, 4, 8, dtype=torch.bfloat16), normal(1, 1, 4, 8, dtype=torch.bfloat16)
    outer = OuterAttention(left, right)
    assert outer.dtype == outer.dense().dtype == torch.float32
    torch.testing.assert_close(outer.dense(), left.float() @ right.float().mT)


@pytest.mark.parametrize(
    ("left", "right"), [((2, 4, 3), (2, 4, 2)), ((3, 4, 3), (2, 4, 3)), ((4, 3), (4, 3))]
)
def test_factors_that_do_not_fit_are_refused(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    build = OuterAttention.__init__.__wrapped__  # past the shape check of the tests
    with pytest.raises(
        OperatorError, match=r"do not fit; they need the shapes \(\*batch, head, query, dim\)"
    ):
        build(object.__new__(OuterAttention), torch.zeros(left), torch.zeros(right))


def test_distributions_are_not_claimed() -> None:
    outer = OuterAttention(torch.ones(1, 2, 1), torch.ones(1, 2, 1))
    with pytest.raises(OperatorError, match="needs rows that are distributions"):
        outer.entropy()
    with pytest.raises(OperatorError, match="is signed"):
        outer.normalized()
