"""What every operator must agree on with the plain matrix that it stands for."""

import torch
from torch import Tensor

from attnscope.attention import AttentionOperator, DenseAttention, key_position
from tests.attention.strategies import normal

__all__ = ["assert_agrees"]


def assert_agrees(operator: AttentionOperator, matrix: Tensor) -> None:
    """Hold every method of an operator to the same method of a stored matrix."""
    twin = DenseAttention(matrix, offset=operator.offset)
    batch, heads = operator.shape[:-3], operator.heads
    some = range(0, operator.queries, 2), [operator.keys - 1, 0]
    asked = [
        lambda o: o.dense(),
        lambda o: o.tile(some[0], some[1]),
        lambda o: o.rows([-1]),
        lambda o: o.columns([0]),
        lambda o: o.row_mass(),
        lambda o: o.column_mass(),
        lambda o: o.absolute_mass(),
        lambda o: o.key_moment(key_position),
        lambda o: o.select_heads([-1, 0]).dense(),
        lambda o: o.T.dense(),
        lambda o: o.mean_heads().dense(),
    ]
    for count in {1, heads}:
        values = normal(5, *batch, count, operator.keys, 2)
        weights = normal(6, *batch, count, operator.queries, 2)
        asked += [lambda o, v=values: o.apply(v), lambda o, u=weights: o.apply_transpose(u)]
    if operator.offset is not None:
        asked += [lambda o: o.band(1), lambda o: o.band(operator.keys + 2)]
    if not operator.signed:
        asked += [lambda o: o.power_sum(2.0), lambda o: o.power_sum(0.5)]
    for ask in asked:
        torch.testing.assert_close(ask(operator), ask(twin))
    assert operator.signed == twin.signed
    assert operator.stochastic <= twin.stochastic
    assert operator.causal <= twin.causal
    assert operator.shape == matrix.shape
