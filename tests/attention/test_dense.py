"""`DenseAttention` by hand and against plain matrix arithmetic."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import DenseAttention, OperatorError, key_position
from tests.attention.oracle import band_of
from tests.attention.strategies import normal

HAND = torch.tensor([[[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]]])


def test_four_tokens_by_hand() -> None:
    attention = DenseAttention(HAND)
    assert attention.row_mass().tolist() == [[1, 1, 1, 1]]
    torch.testing.assert_close(attention.column_mass(), torch.tensor([[1.8, 1.0, 0.8, 0.4]]))
    torch.testing.assert_close(
        attention.key_moment(key_position), torch.tensor([[0, 0.5, 1.3, 2.0]])
    )
    torch.testing.assert_close(attention.power_sum(2.0), torch.tensor([[1, 0.5, 0.38, 0.3]]))
    torch.testing.assert_close(attention.entropy()[0, :2], torch.tensor([0, math.log(2)]))
    torch.testing.assert_close(
        attention.band(2), torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.5, 0.3], [0.4, 0.3]]])
    )
    assert (attention.stochastic, attention.signed, attention.causal, attention.offset) == (
        True,
        False,
        True,
        0,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(), (2,), (2, 3)]),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 100),
    st.integers(0, 999),
)
def test_defaults_agree_with_matrix_arithmetic(
    batch: tuple[int, ...], queries: int, keys: int, width: int, seed: int
) -> None:
    pattern = normal(seed, *batch, 2, queries, keys).abs()
    attention = DenseAttention(pattern)
    values = normal(seed + 1, *batch, 1, keys, 3)
    torch.testing.assert_close(attention.apply(values), pattern @ values)
    torch.testing.assert_close(attention.column_mass(), pattern.sum(-2))
    torch.testing.assert_close(attention.row_mass(), pattern.sum(-1))
    torch.testing.assert_close(attention.band(width), band_of(pattern, width, keys - queries))
    torch.testing.assert_close(
        attention.normalized().dense(), pattern / pattern.sum(-1, keepdim=True)
    )
    torch.testing.assert_close(attention.power_sum(0.5), pattern.sqrt().sum(-1))
    assert torch.equal(torch.cat([block for _, block in attention.blocks()], dim=-2), pattern)


@pytest.mark.parametrize("offset", [-100, -3, 0, 5, 100])
@pytest.mark.parametrize("width", [1, 2, 70])
def test_a_band_may_leave_the_map_on_any_side(offset: int, width: int) -> None:
    pattern = normal(0, 1, 80, 20).abs()
    attention = DenseAttention(pattern, offset=offset)
    torch.testing.assert_close(attention.band(width), band_of(pattern, width, offset))


def test_facts_are_read_from_the_numbers() -> None:
    uniform = torch.full((1, 3, 3), 1 / 3)
    assert not DenseAttention(uniform).causal
    assert not DenseAttention(HAND * 0.9).stochastic
    assert DenseAttention(-HAND).signed
    assert not DenseAttention(-HAND).stochastic
    assert DenseAttention(HAND[:, 1:]).causal
    assert DenseAttention(HAND[:, 1:]).offset == 1
    assert DenseAttention(HAND, query_axis="probe").offset is None
    assert DenseAttention(HAND.bfloat16()).stochastic


def test_empty_rows_are_no_queries() -> None:
    pattern = HAND.clone()
    pattern[:, 1] = 0
    attention = DenseAttention(pattern)
    assert attention.stochastic
    assert attention.valid_queries.tolist() == [[True, False, True, True]]
    assert attention.entropy().isnan().tolist() == [[False, True, False, False]]
    assert attention.power_sum(2.0)[0, 1] == 0


def test_absolute_mass_counts_both_signs() -> None:
    signed = DenseAttention(torch.tensor([[[1.0, -2.0], [0.0, 3.0]]]))
    assert signed.absolute_mass().tolist() == [[3, 3]]
    assert signed.row_mass().tolist() == [[-1, 3]]
    assert DenseAttention(HAND).absolute_mass().tolist() == [[1, 1, 1, 1]]


def test_heads_are_selected_in_order() -> None:
    pattern = normal(0, 2, 3, 4, 5).abs()
    selected = DenseAttention(pattern, offset=2).select_heads([2, -3])
    assert torch.equal(selected.dense(), pattern[:, [2, 0]])
    assert selected.offset == 2


def test_gradients_pass_through_entropy_at_zeros() -> None:
    pattern = HAND.clone().requires_grad_()
    DenseAttention(pattern).entropy().sum().backward()
    assert pattern.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (3, 3)])
def test_a_map_without_a_head_axis_is_refused(shape: tuple[int, ...]) -> None:
    def build(pattern: Tensor) -> None:
        DenseAttention.__init__.__wrapped__(
            object.__new__(DenseAttention), pattern
        )  # past the shape check

    with pytest.raises(OperatorError, match=r"at least the axes \(head, query, key\)"):
        build(torch.zeros(shape))
