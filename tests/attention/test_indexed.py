"""`IndexedAttention` and `indexed_scores` against slow loops over slots."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from attnscope.attention import (
    DenseAttention,
    IndexedAttention,
    OperatorError,
    indexed_scores,
)
from tests.attention.agreement import assert_agrees
from tests.attention.strategies import normal

Shape = tuple[int, ...]


def random_index(seed: int, lead: Shape, queries: int, slots: int, keys: int) -> Tensor:
    """Return a table with empty slots and with keys that stand in several slots of a row."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, keys, (*lead, queries, slots), generator=generator)


def pattern_of(index: Tensor, seed: int, lead: Shape) -> Tensor:
    """Return weights that sum to 1 over each row's filled slots."""
    scores = normal(seed, *lead, *index.shape[-2:]).masked_fill(index < 0, -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0)


def laid_out(weights: Tensor, index: Tensor, keys: int) -> Tensor:
    """Return the matrix, slot by slot."""
    index = index.expand(weights.shape)
    matrix = torch.zeros(*weights.shape[:-1], keys, dtype=weights.dtype)
    for place in torch.cartesian_prod(*[torch.arange(size) for size in weights.shape]):
        *row, slot = place.tolist()
        if index[(*row, slot)] >= 0:
            matrix[(*row, int(index[(*row, slot)]))] += weights[(*row, slot)]
    return matrix


CASES = st.sampled_from(
    [
        ((3,), ()),
        ((3,), (3,)),
        ((2, 3), ()),
        ((2, 3), (1, 3)),
        ((2, 3), (2, 1)),
        ((2, 3), (2, 3)),
        ((2, 3), (3,)),
        ((2, 2, 1), (2, 1, 1)),
    ]
)


@settings(max_examples=20, deadline=None)
@given(
    CASES,
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 7),
    st.sampled_from([None, 0, 2, -1]),
    st.integers(0, 999),
)
def test_every_method_is_that_of_the_matrix(
    case: tuple[Shape, Shape], queries: int, slots: int, keys: int, offset: int | None, seed: int
) -> None:
    lead, tables = case
    index = random_index(seed, tables, queries, slots, keys)
    weights = pattern_of(index, seed, lead)
    operator = IndexedAttention(weights, index, keys, offset=offset)
    matrix = laid_out(weights, index, keys)
    assert_agrees(operator, matrix)
    assert operator.stochastic
    twin = DenseAttention(matrix, offset=offset)
    entropy = -torch.special.xlogy(matrix, matrix).sum(-1)
    entropy = entropy.masked_fill((matrix == 0).all(-1), torch.nan)
    torch.testing.assert_close(operator.entropy(), entropy, equal_nan=True)
    torch.testing.assert_close(operator.tile([0, 0], [-1, 0, -1]), twin.tile([0, 0], [-1, 0, -1]))
    valid = operator.valid_queries.expand(operator.shape[:-1])
    assert valid.equal((matrix > 0).any(-1))


@settings(max_examples=12, deadline=None)
@given(CASES, st.integers(0, 999), st.sampled_from(["signed", "unnormalized"]))
def test_weights_need_not_be_distributions(case: tuple[Shape, Shape], seed: int, kind: str) -> None:
    index = random_index(seed, case[1], 4, 3, 5)
    weights = normal(seed, *case[0], 4, 3).masked_fill(index < 0, 0)
    weights = weights if kind == "signed" else weights.abs()
    operator, matrix = IndexedAttention(weights, index, 5), laid_out(weights, index, 5)
    torch.testing.assert_close(operator.dense(), matrix)
    torch.testing.assert_close(operator.absolute_mass(), matrix.abs().sum(-1))
    if kind == "signed":
        with pytest.raises(OperatorError, match="signed"):
            operator.normalized()
        with pytest.raises(OperatorError, match="not negative"):
            operator.power_sum(2.0)
    else:
        torch.testing.assert_close(
            operator.normalized().dense(),
            (matrix / matrix.sum(-1, keepdim=True)).nan_to_num(0.0),
        )


@settings(max_examples=12, deadline=None)
@given(CASES, st.integers(0, 999))
def test_transposition_and_rows(case: tuple[Shape, Shape], seed: int) -> None:
    index = random_index(seed, case[1], 5, 3, 4)
    operator = IndexedAttention(pattern_of(index, seed, case[0]), index, 4)
    values, weights = normal(1, *case[0], 4, 2), normal(2, *case[0], 5, 2)
    left = (operator.apply(values) * weights).sum()
    torch.testing.assert_close(left, (values * operator.apply_transpose(weights)).sum())
    torch.testing.assert_close(
        operator.row_mass(), operator.valid_queries.expand(operator.shape[:-1]).double()
    )


@settings(max_examples=12, deadline=None)
@given(CASES, st.integers(1, 4), st.integers(0, 999), st.booleans())
def test_scores_are_dot_products_slot_by_slot(
    case: tuple[Shape, Shape], dim: int, seed: int, shared: bool
) -> None:
    lead, tables = case
    index = random_index(seed, tables, 4, 3, 5)
    key_heads = 1 if shared else lead[-1]
    query, key = normal(seed, *lead, 4, dim), normal(seed + 1, *lead[:-1], key_heads, 5, dim)
    scores, table = indexed_scores(query, key, index), index.expand(*lead, 4, 3)
    key = key.expand(*lead, 5, dim)
    for place in torch.cartesian_prod(*[torch.arange(size) for size in scores.shape]):
        *row, slot = place.tolist()
        j = int(table[(*row, slot)])
        expected = query[tuple(row)] @ key[(*row[:-1], j)] if j >= 0 else torch.tensor(-torch.inf)
        torch.testing.assert_close(scores[(*row, slot)], expected, check_dtype=False)


def _attend(index: Tensor, keys: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def attend(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        scores = indexed_scores(query, key, index)
        weights = scores.softmax(-1)
        operator = IndexedAttention(weights, index, keys)
        return operator.apply_transpose(operator.apply(values))

    return attend


@pytest.mark.parametrize("tables", [(), (2, 1), (2, 2)])
def test_gradients_are_those_of_finite_differences(tables: Shape) -> None:
    index = random_index(1, tables, 3, 3, 3)
    index[..., 0] = index[..., 0].clamp_min(0)  # every query has a key
    inputs = tuple(normal(seed, 2, 2, 3, 1).requires_grad_() for seed in range(3))
    assert gradcheck(_attend(index, 3), inputs)


def test_gradients_of_gradients_are_those_of_finite_differences() -> None:
    index = torch.tensor([[0, 1, 0], [1, -1, 2], [2, 0, -1]])
    inputs = tuple(normal(seed, 1, 3, 1).requires_grad_() for seed in range(3))
    assert gradgradcheck(_attend(index, 3), inputs)


def test_statistics_pass_gradients_to_the_weights() -> None:
    index = random_index(3, (), 4, 3, 4).clamp_min(0)
    weights = pattern_of(index, 0, (2,)).requires_grad_()

    def moments(weights: Tensor) -> tuple[Tensor, ...]:
        operator = IndexedAttention(weights, index, 4, offset=0)
        return operator.power_sum(2.0), operator.band(2), operator.dense(), operator.row_mass()

    assert gradcheck(moments, (weights.clone(),), check_undefined_grad=False)


def test_an_entry_is_counted_once_in_entropy() -> None:
    weights = torch.tensor([[[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]])
    operator = IndexedAttention(weights, torch.tensor([[1, 0, 1], [0, 1, 2]]), 3)
    assert operator.dense().tolist() == [[[0.5, 0.5, 0.0], [0.5, 0.25, 0.25]]]
    torch.testing.assert_close(
        operator.entropy(), torch.tensor([[0.6931, 1.0397]]), atol=1e-4, rtol=0
    )
    assert operator.power_sum(2.0).tolist() == [[0.5, 0.375]]


def test_it_works_at_a_length_whose_matrix_is_refused() -> None:
    length, slots = 40_000, 5
    index = (torch.arange(length)[:, None] + torch.arange(slots) - 2).clamp(0, length - 1)
    query, key = normal(0, 1, length, 4, dtype=torch.float32), normal(1, 1, length, 4).float()
    weights = indexed_scores(query, key, index).softmax(-1)
    operator = IndexedAttention(weights, index, length, offset=0)
    with pytest.raises(OperatorError, match="over the limit"):
        operator.dense()
    torch.testing.assert_close(operator.apply(torch.ones(1, length, 1)), torch.ones(1, length, 1))
    torch.testing.assert_close(operator.column_mass().sum(), torch.tensor(float(length)))
    assert operator.entropy().shape == operator.power_sum(2.0).shape == (1, length)
    assert operator.band(3).shape == (1, length, 3)
    assert operator.tile(range(10), slice(None)).shape == (1, 10, length)


def test_heads_beyond_one_chunk_are_read_like_the_first() -> None:
    length, slots, heads = 300, 64, 70  # more slots than are written out at once
    index = random_index(0, (), length, slots, length)
    weights = pattern_of(index, 0, (heads,))
    values = normal(1, heads, length, 2)
    operator = IndexedAttention(weights, index, length)
    last = operator.select_heads([-1])
    torch.testing.assert_close(operator.apply(values)[-1:], last.apply(values[-1:]))
    torch.testing.assert_close(last.apply(values[-1:]), last.dense() @ values[-1:])
    torch.testing.assert_close(operator.apply_transpose(values)[-1:], last.dense().mT @ values[-1:])
    torch.testing.assert_close(
        indexed_scores(values, values, index)[-1:], indexed_scores(values[-1:], values[-1:], index)
    )


def test_sixteen_bit_weights_have_statistics_in_thirty_two() -> None:
    index = random_index(0, (), 5, 3, 4)
    weights = pattern_of(index, 0, (2,)).bfloat16()
    values = normal(1, 2, 4, 3, dtype=torch.bfloat16)
    operator = IndexedAttention(weights, index, 4)
    assert operator.dtype == operator.entropy().dtype == operator.dense().dtype == torch.float32
    assert operator.apply(values).dtype == torch.bfloat16
    torch.testing.assert_close(
        operator.apply(values).float(), operator.dense() @ values.float(), atol=2e-2, rtol=2e-2
    )
    assert indexed_scores(values[:, [0] * 5], values, index).dtype == torch.bfloat16


def test_one_item_and_some_heads_keep_their_tables() -> None:
    index = random_index(0, (2, 3), 4, 2, 5)
    weights = pattern_of(index, 0, (2, 3)).requires_grad_()
    operator = IndexedAttention(weights, index, 5, offset=1, key_axis="memory")
    matrix = operator.dense()
    item = operator.item(1)
    assert not item.weights.requires_grad
    assert (item.offset, item.key_axis) == (1, "memory")
    torch.testing.assert_close(item.dense(), matrix[1])
    torch.testing.assert_close(item.select_heads([2, 0]).dense(), matrix[1, [2, 0]])
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


@pytest.mark.parametrize("tables", [(), (1,), (3,), (1, 1), (2, 1)])
def test_parts_build_it_again(tables: Shape) -> None:
    index = random_index(0, tables, 4, 2, 5)
    operator = IndexedAttention(pattern_of(index, 0, (2, 3)), index, 5, offset=1)
    operator = operator.item(1)
    tensors, facts = operator.parts()
    assert tensors["index"].shape == ((3, 4, 2) if tables == (3,) else (4, 2))
    again = IndexedAttention.from_parts(tensors, facts)
    assert again.dense().equal(operator.dense())
    assert repr(again) == "IndexedAttention(heads=3, queries=4, keys=5, float64)"


def test_queries_or_slots_may_be_none() -> None:
    nobody = IndexedAttention(torch.zeros(1, 0, 2), torch.zeros(0, 2, dtype=torch.long), 3)
    assert nobody.apply(torch.ones(1, 3, 2)).shape == (1, 0, 2)
    assert nobody.apply_transpose(torch.ones(1, 0, 2)).tolist() == [[[0, 0]] * 3]
    blind = IndexedAttention(torch.zeros(1, 2, 0), torch.zeros(2, 0, dtype=torch.long), 3)
    assert blind.apply(torch.ones(1, 3, 1)).tolist() == [[[0], [0]]]
    assert not blind.valid_queries.any()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([[0, 3]]), r"index holds 0 to 3; there are 3 keys, from 0 to 2"),
        (torch.tensor([[0, -2]]), r"and -1 means an empty slot"),
        (torch.tensor([[0, -1]]), r"an empty slot \(index -1\) has a weight"),
        (torch.tensor([[0, 1]] * 2), "index has 2 rows for 1 queries"),
        (torch.tensor([[0, 1, 2]]), "do not fit; they need the shapes"),
        (torch.tensor([[[[0, 1]]]]), "with leading axes that broadcast to those"),
        (torch.tensor([[[0, 1]]] * 3), r"does not fit \(2,\) \(\*batch, head\)"),
    ],
)
def test_tables_that_do_not_fit_are_refused(index: Tensor, message: str) -> None:
    build: Any = IndexedAttention.__init__
    with pytest.raises(OperatorError, match=message):  # past the shape check of the tests
        build.__wrapped__(object.__new__(IndexedAttention), torch.full((2, 1, 2), 0.5), index, 3)


def test_scores_of_unlike_factors_are_refused() -> None:
    with pytest.raises(OperatorError, match=r"query \(3, 2, 4\) and key \(2, 2, 4\) do not fit"):
        indexed_scores(torch.ones(3, 2, 4), torch.ones(2, 2, 4), torch.zeros(2, 1).long())


def test_causality_is_read_from_the_table() -> None:
    weights = torch.ones(1, 2, 1)
    table = torch.tensor([[0], [1]])
    assert IndexedAttention(weights, table, 2, offset=0).causal
    assert not IndexedAttention(weights, table, 2, offset=-1).causal
    assert not IndexedAttention(weights, table, 2).causal
    with pytest.raises(OperatorError, match="positions of one sequence"):
        IndexedAttention(weights, table, 2).band(1)


def test_slots_may_outnumber_the_keys() -> None:
    query, key = normal(0, 2, 16, 6).requires_grad_(), normal(1, 2, 4, 6).requires_grad_()
    index = torch.randint(-1, 4, (16, 9), generator=torch.Generator().manual_seed(2))
    expected = (query @ key.mT).gather(-1, index.clamp_min(0).expand(2, -1, -1))
    expected = torch.where(index >= 0, expected, -torch.inf)
    torch.testing.assert_close(indexed_scores(query, key, index), expected)
    weights = indexed_scores(query, key, index).softmax(-1)
    rows = index.ge(0).any(-1)
    attention = IndexedAttention(weights[:, rows], index[rows], 4)
    loss = attention.apply(key).square().sum()
    again = (expected[:, rows].softmax(-1).unsqueeze(-2) @ _named(key, index[rows])).square().sum()
    for one, other in zip(
        torch.autograd.grad(loss, (query, key)),
        torch.autograd.grad(again, (query, key)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def _named(key: Tensor, index: Tensor) -> Tensor:
    return key[:, index.clamp_min(0)]
