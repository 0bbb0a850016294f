"""`GateAttention` against the diagonal matrix that it stands for."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention, GateAttention, OperatorError
from tests.attention.agreement import assert_agrees
from tests.attention.strategies import normal


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(), (1,), (2,), (2, 2)]),
    st.integers(1, 3),
    st.integers(1, 9),
    st.booleans(),
)
def test_every_method_is_that_of_the_diagonal(
    batch: tuple[int, ...], heads: int, length: int, signed: bool
) -> None:
    gate = normal(0, *batch, heads, length)
    gate = gate if signed else gate.sigmoid()
    assert_agrees(GateAttention(gate), torch.diag_embed(gate))


def test_the_hand_case() -> None:
    gate = GateAttention(torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    assert gate.power_sum(2.0).tolist() == [[0.25, 0.0625]]
    assert gate.band(2).tolist() == [[[0.5, 0.0], [0.25, 0.0]]]
    assert (gate @ gate).dense().tolist() == [[[0.25, 0.0], [0.0, 0.0625]]]


def test_what_needs_a_distribution_is_refused_even_of_a_gate_between_zero_and_one() -> None:
    gate = GateAttention(torch.tensor([[1.0, 1.0]]))
    assert not gate.stochastic
    for ask, name in [(gate.entropy, "entropy"), (gate.normalized, r"normalized\(\)")]:
        with pytest.raises(OperatorError, match=f"{name} needs rows that .* is a gate: each"):
            ask()
    with pytest.raises(OperatorError, match="entries that are not negative"):
        GateAttention(torch.tensor([[-1.0]])).power_sum(2.0)
    with pytest.raises(OperatorError, match="the exponent is positive"):
        gate.power_sum(0.0)
    with pytest.raises(OperatorError, match="starts at 1"):
        gate.band(0)


def test_gradients_reach_gate_and_values() -> None:
    gate, values = normal(0, 2, 3, 4).requires_grad_(), normal(1, 2, 3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda g, v: GateAttention(g).apply(v), (gate, values))
    assert torch.autograd.gradcheck(
        lambda g, v: GateAttention(g).apply_transpose(v), (gate, values)
    )


def test_an_item_is_cut_from_batch_and_graph() -> None:
    gate = normal(0, 2, 3, 4).requires_grad_()
    item = GateAttention(gate, query_axis="channel", key_axis="channel").item(1)
    torch.testing.assert_close(item.gate, gate[1])
    assert not item.gate.requires_grad
    assert item.query_axis == item.key_axis == "channel"
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


def test_it_is_built_again_from_its_parts() -> None:
    gate = GateAttention(normal(0, 2, 5), query_axis="patch", key_axis="patch")
    again = GateAttention.from_parts(*gate.parts())
    torch.testing.assert_close(again.dense(), gate.dense())
    assert again.query_axis == "patch"


def test_length_costs_nothing_that_grows_with_its_square() -> None:
    gate = GateAttention(torch.full((2, 200_000), 0.5))
    assert float(gate.apply(torch.ones(1, 200_000, 1)).sum()) == 200_000
    assert gate.band(3).shape == (2, 200_000, 3)
    assert gate.row_mass().sum() == gate.column_mass().sum() == 200_000
    with pytest.raises(OperatorError, match="over the limit"):
        gate.dense()


def test_sixteen_bit_gates_have_statistics_in_thirty_two() -> None:
    gate = GateAttention(normal(0, 1, 4, dtype=torch.bfloat16))
    assert gate.dtype == gate.row_mass().dtype == gate.dense().dtype == torch.float32
    assert gate.apply(torch.ones(1, 4, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_gate_between_different_positions_or_without_heads_is_refused() -> None:
    with pytest.raises(OperatorError, match="cannot map channel keys to patch queries"):
        GateAttention(torch.ones(1, 2), query_axis="patch", key_axis="channel")
    build: Any = vars(GateAttention.__init__)["__wrapped__"]  # past the shape check of the tests
    with pytest.raises(OperatorError, match=r"at least the axes \(head, position\)"):
        build(object.__new__(GateAttention), torch.ones(2))


def test_a_stored_diagonal_is_a_distribution_only_where_it_is_one() -> None:
    assert DenseAttention(torch.eye(2)[None]).stochastic  # a matrix is read from its numbers
    assert not GateAttention(torch.ones(1, 2)).stochastic
