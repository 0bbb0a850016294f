"""`RolloutOperator` against products of matrices written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import (
    DenseAttention,
    OperatorError,
    OuterAttention,
    RolloutOperator,
    SoftmaxAttention,
)
from tests.attention.strategies import normal


def test_two_layers_by_hand() -> None:
    layer = DenseAttention(torch.tensor([[[0.5, 0.5], [0.2, 0.8]]], dtype=torch.float64))
    rollout = RolloutOperator([layer, layer])
    expected = torch.tensor([[[0.5875, 0.4125], [0.165, 0.835]]], dtype=torch.float64)
    torch.testing.assert_close(rollout.dense(), expected)
    torch.testing.assert_close(rollout.row_mass(), torch.ones(1, 2, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from([(), (2,)]),
    st.booleans(),
    st.integers(0, 999),
)
def test_rollout_is_the_product_of_the_layers(
    depth: int, length: int, batch: tuple[int, ...], sinks: bool, seed: int
) -> None:
    layers = [
        SoftmaxAttention(
            normal(seed + layer, *batch, 3, length, 2),
            normal(seed - layer, *batch, 1, length, 2),
            sinks=normal(layer, 3) if sinks else None,
        )
        for layer in range(depth)
    ]
    matrix = torch.eye(length, dtype=torch.float64)
    for layer in layers:  # later layers on the left; rows divided by their sum
        mixed = layer.dense().mean(-3, keepdim=True) + torch.eye(length)
        matrix = mixed / mixed.sum(-1, keepdim=True) @ matrix
    rollout = RolloutOperator(layers)
    values, weights = normal(1, *batch, 1, length, 3), normal(2, *batch, 1, length, 3)
    for actual, expected in [
        (rollout.dense(), matrix),
        (rollout.rows([-1]), matrix[..., -1:, :]),
        (rollout.columns([0]), matrix[..., :1]),
        (rollout.apply(values), matrix @ values),
        (rollout.apply_transpose(weights), matrix.mT @ weights),
        (rollout.column_mass(), matrix.sum(-2)),
        (rollout.entropy(), -torch.special.xlogy(matrix, matrix).sum(-1)),
        (rollout.select_heads([0]).dense(), matrix),
    ]:
        torch.testing.assert_close(actual, expected)
    assert (rollout.stochastic, rollout.causal, rollout.heads) == (True, True, 1)


def test_layers_that_are_no_map_of_one_sequence_are_refused() -> None:
    with pytest.raises(OperatorError, match="needs at least one layer; none was given"):
        RolloutOperator([])
    for layer in (
        DenseAttention(torch.ones(1, 2, 3)),
        DenseAttention(torch.eye(2)[None], key_axis="patch"),
    ):
        with pytest.raises(OperatorError, match="map a sequence to itself; got DenseAttention"):
            RolloutOperator([layer])


def test_there_is_one_head() -> None:
    layer = DenseAttention(torch.eye(2)[None])
    with pytest.raises(OperatorError, match=r"head .* lies outside: this operator has 1"):
        RolloutOperator([layer]).select_heads(1)


def test_signed_layers_give_no_distributions() -> None:
    layer = OuterAttention(normal(0, 1, 3, 2), normal(1, 1, 3, 2))
    assert not RolloutOperator([layer]).stochastic
