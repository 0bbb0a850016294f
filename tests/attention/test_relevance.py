"""`RelevanceOperator` and its normalization against products of matrices written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import (
    AttentionOperator,
    DenseAttention,
    NormalizedRelevance,
    OperatorError,
    RelevanceOperator,
)
from tests.attention.strategies import normal


def test_two_layers_by_hand() -> None:
    layer = DenseAttention(torch.tensor([[[0.5, 0.0], [0.0, 0.0]]], dtype=torch.float64))
    expected = torch.tensor([[[2.25, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    torch.testing.assert_close(RelevanceOperator([layer, layer]).dense(), expected)


def assert_is(operator: AttentionOperator, matrix: torch.Tensor) -> None:
    """Hold an operator of one head to a matrix."""
    batch, length = matrix.shape[:-3], matrix.shape[-1]
    values, weights = normal(1, *batch, 1, length, 3), normal(2, *batch, 1, length, 3)
    for actual, expected in [
        (operator.dense(), matrix),
        (operator.tile([-1], [0]), matrix[..., -1:, :1]),
        (operator.rows([-1]), matrix[..., -1:, :]),
        (operator.columns([0]), matrix[..., :1]),
        (operator.apply(values), matrix @ values),
        (operator.apply_transpose(weights), matrix.mT @ weights),
        (operator.T.dense(), matrix.mT),
        (operator.row_mass(), matrix.sum(-1)),
        (operator.column_mass(), matrix.sum(-2)),
        (operator.select_heads([0]).dense(), matrix),
    ]:
        torch.testing.assert_close(actual, expected)
    assert (operator.stochastic, operator.signed, operator.shape) == (False, False, matrix.shape)


def layers_of(depth: int, length: int, batch: tuple[int, ...], seed: int) -> list[DenseAttention]:
    """Return layers of three heads, some of whose rows are empty."""
    maps = [normal(seed + layer, *batch, 3, length, length).relu() for layer in range(depth)]
    for pattern in maps:
        pattern[..., 0, :] = 0
    return [DenseAttention(pattern) for pattern in maps]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.sampled_from([(), (2,)]), st.integers(0, 999))
def test_it_is_the_product_of_the_layers(
    depth: int, length: int, batch: tuple[int, ...], seed: int
) -> None:
    layers = layers_of(depth, length, batch, seed)
    one = torch.eye(length, dtype=torch.float64)
    matrix = one.expand(*batch, 1, length, length)
    for layer in layers:
        matrix = matrix + layer.dense().mean(-3, keepdim=True) @ matrix
    relevance = RelevanceOperator(layers)
    assert_is(relevance, matrix)
    excess = matrix - one
    mass = excess.sum(-1, keepdim=True)
    normalized = torch.where(mass > 0, excess / mass, 0) + one
    assert_is(NormalizedRelevance(relevance), normalized)
    if batch:
        torch.testing.assert_close(relevance.item(1).dense(), matrix[1])
        torch.testing.assert_close(NormalizedRelevance(relevance).item(1).dense(), normalized[1])


def test_a_row_to_which_nothing_was_added_is_its_own() -> None:
    nothing = RelevanceOperator([DenseAttention(torch.zeros(1, 3, 3))])
    torch.testing.assert_close(NormalizedRelevance(nothing).dense(), torch.eye(3)[None])


def test_small_additions_are_not_lost_beside_the_residual() -> None:
    faint = RelevanceOperator([DenseAttention(torch.full((1, 2, 2), 1e-9))])
    normalized = NormalizedRelevance(faint).dense()
    torch.testing.assert_close(normalized, torch.eye(2)[None] + 0.5)


def test_layers_that_are_no_map_of_one_sequence_are_refused() -> None:
    with pytest.raises(OperatorError, match="needs at least one layer; none was given"):
        RelevanceOperator([])
    with pytest.raises(OperatorError, match="map a sequence to itself; got DenseAttention"):
        RelevanceOperator([DenseAttention(torch.ones(1, 2, 3))])
