"""Sums, products, multiples, transposes and means of operators against their matrices."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnscope.attention import (
    AttentionOperator,
    DenseAttention,
    Mask,
    OperatorError,
    OuterAttention,
    ProductAttention,
    RowScaledAttention,
    ScaledAttention,
    SoftmaxAttention,
    SumAttention,
    key_position,
    operator_from,
)
from tests.attention.oracle import band_of
from tests.attention.strategies import normal

BATCHES = [(), (2,)]


def operands(
    batch: tuple[int, ...] = (),
) -> tuple[AttentionOperator, AttentionOperator, AttentionOperator]:
    """Return a causal softmax operator, a stored map and a signed one of low rank."""
    first = SoftmaxAttention(normal(0, *batch, 2, 7, 3), normal(1, *batch, 1, 7, 3))
    second = DenseAttention(normal(2, *batch, 2, 7, 7).softmax(-1))
    return first, second, OuterAttention(normal(3, *batch, 2, 7, 2), normal(4, *batch, 2, 7, 2))


FACTORS = normal(5, 2, 7).abs()

Operators = Callable[[AttentionOperator, AttentionOperator, AttentionOperator], AttentionOperator]
Matrices = Callable[[Tensor, Tensor, Tensor], Tensor]

COMBINATIONS: dict[str, tuple[Operators, Matrices]] = {
    "sum": (lambda a, b, c: a + b, lambda a, b, c: a + b),
    "signed sum": (lambda a, b, c: a + c, lambda a, b, c: a + c),
    "product": (lambda a, b, c: a @ b, lambda a, b, c: a @ b),
    "signed product": (lambda a, b, c: ProductAttention((a, b, c)), lambda a, b, c: a @ b @ c),
    "multiple": (lambda a, b, c: 0.5 * a, lambda a, b, c: 0.5 * a),
    "multiple by head": (
        lambda a, b, c: ScaledAttention(a, torch.tensor([0.25, -2.0])),
        lambda a, b, c: a * torch.tensor([0.25, -2.0])[:, None, None],
    ),
    "negative": (lambda a, b, c: a * -2.0, lambda a, b, c: -2 * a),
    "transpose": (lambda a, b, c: a.T, lambda a, b, c: a.mT),
    "mean": (lambda a, b, c: a.mean_heads(), lambda a, b, c: a.mean(-3, keepdim=True)),
    "scaled rows": (
        lambda a, b, c: RowScaledAttention(a, FACTORS.expand(*a.shape[:-1])),
        lambda a, b, c: a * FACTORS.unsqueeze(-1),
    ),
    "all at once": (
        lambda a, b, c: (0.3 * (a @ b).T + c).mean_heads(),
        lambda a, b, c: (0.3 * (a @ b).mT + c).mean(-3, keepdim=True),
    ),
}


@pytest.fixture(params=COMBINATIONS)
def combination(request: pytest.FixtureRequest) -> tuple[Operators, Matrices]:
    return COMBINATIONS[request.param]


@pytest.mark.parametrize("batch", BATCHES)
def test_every_method_is_that_of_the_matrix(
    combination: tuple[Operators, Matrices], batch: tuple[int, ...]
) -> None:
    parts = operands(batch)
    operator, matrix = combination[0](*parts), combination[1](*(part.dense() for part in parts))
    heads = operator.heads
    values, weights = normal(6, *batch, heads, 7, 3), normal(7, *batch, heads, 7, 2)
    for actual, expected in [
        (operator.apply(values), matrix @ values),
        (operator.apply(values[..., :1, :, :]), matrix @ values[..., :1, :, :]),
        (operator.apply_transpose(weights), matrix.mT @ weights),
        (operator.apply_transpose(weights[..., :1, :, :]), matrix.mT @ weights[..., :1, :, :]),
        (operator.dense(), matrix),
        (operator.tile([4, -1, 0], [2]), matrix[..., [4, -1, 0], :][..., [2]]),
        (operator.tile([3], slice(1, 5)), matrix[..., 3:4, 1:5]),
        (operator.rows([]), matrix[..., :0, :]),
        (operator.columns([5]), matrix[..., 5:6]),
        (operator.band(3), band_of(matrix, 3, 0)),
        (operator.row_mass(), matrix.sum(-1)),
        (operator.column_mass(), matrix.sum(-2)),
        (operator.absolute_mass(), matrix.abs().sum(-1)),
        (operator.key_moment(key_position), matrix @ torch.arange(7.0, dtype=torch.float64)),
        (operator.select_heads([-1]).dense(), matrix[..., -1:, :, :]),
        (operator.T.dense(), matrix.mT),
        (torch.cat([block for _, block in operator.blocks()], dim=-2), matrix),
    ]:
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_what_a_combination_says_of_itself_is_true(
    combination: tuple[Operators, Matrices], batch: tuple[int, ...]
) -> None:
    parts = operands(batch)
    operator, matrix = combination[0](*parts), combination[1](*(part.dense() for part in parts))
    assert operator.shape == matrix.shape
    if not operator.signed:
        assert (matrix >= 0).all()
        torch.testing.assert_close(operator.power_sum(2.0), matrix.square().sum(-1))
        torch.testing.assert_close(
            operator.normalized().row_mass(), torch.ones(matrix.shape[:-1]).double()
        )
    if operator.stochastic:
        torch.testing.assert_close(matrix.sum(-1), torch.ones(matrix.shape[:-1]).double())
        torch.testing.assert_close(operator.entropy(), -torch.special.xlogy(matrix, matrix).sum(-1))
    if operator.causal:
        assert not matrix.triu(1).any()


def test_products_of_rectangles_add_their_offsets() -> None:
    first = SoftmaxAttention(normal(0, 1, 3, 2), normal(1, 1, 5, 2))
    second = SoftmaxAttention(normal(2, 1, 5, 2), normal(3, 1, 8, 2))
    product = first @ second
    assert (product.shape, product.offset, product.causal, product.stochastic) == (
        (1, 3, 8),
        5,
        True,
        True,
    )
    matrix = first.dense() @ second.dense()
    torch.testing.assert_close(product.band(4), band_of(matrix, 4, 5))
    torch.testing.assert_close(product.T.band(4), band_of(matrix.mT, 4, -5))


def test_axes_are_named_from_outside_in() -> None:
    first = DenseAttention(torch.ones(1, 2, 3), query_axis="token", key_axis="memory")
    second = DenseAttention(torch.ones(1, 3, 4), query_axis="memory", key_axis="patch")
    product = first @ second
    assert (product.query_axis, product.key_axis, product.offset) == ("token", "patch", None)
    assert (product.T.query_axis, product.T.key_axis) == ("patch", "token")


def test_rows_that_do_not_exist_stay_so() -> None:
    hidden = Mask(after=0, key_valid=torch.tensor([False, False, True, True, True, True, True]))
    padded = SoftmaxAttention(normal(0, 2, 7, 3), normal(1, 2, 7, 3), mask=hidden)
    expected = [[False, False, True, True, True, True, True]]
    for operator in (
        padded * 1.0,
        padded + padded,
        padded @ padded,
        padded.mean_heads(),
        (0.5 * padded).normalized(),
    ):
        assert operator.valid_queries.any(-2, keepdim=True).tolist() == expected
    for operator in (padded * 1.0, padded.mean_heads(), (0.5 * padded).normalized()):
        assert operator.entropy().isnan().any(-2, keepdim=True).logical_not().tolist() == expected


def test_a_sum_of_operators_at_different_places_has_no_place() -> None:
    first = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    terms = DenseAttention(first, offset=0), DenseAttention(first, offset=1)
    assert all(term.causal for term in terms)
    total = terms[0] + terms[1]
    assert total.offset is None
    assert not total.causal


def test_types_are_promoted() -> None:
    single = SoftmaxAttention(
        normal(0, 1, 4, 2, dtype=torch.float32), normal(1, 1, 4, 2, dtype=torch.float32)
    )
    double = DenseAttention(normal(2, 1, 4, 4).softmax(-1))
    assert (single + double).dtype == (single + double).dense().dtype == torch.float64
    assert (single @ double).dtype == (single @ double).dense().dtype == torch.float64


def test_operators_that_do_not_fit_are_refused() -> None:
    small, large = DenseAttention(torch.eye(2)[None]), DenseAttention(torch.eye(3)[None])
    with pytest.raises(
        OperatorError, match=r"a sum needs one shape; got \(1, 2, 2\) and \(1, 3, 3\)"
    ):
        SumAttention((small, large))
    with pytest.raises(OperatorError, match=r"cannot multiply .* inner axes differ"):
        small @ large
    with pytest.raises(OperatorError, match="cannot multiply"):
        small @ DenseAttention(torch.eye(2).expand(2, 1, 2, 2))


def test_a_mean_over_heads_is_not_stored() -> None:
    mean = DenseAttention(torch.eye(2)[None]).mean_heads()
    with pytest.raises(OperatorError, match="store the operator that has them"):
        mean.parts()
    with pytest.raises(OperatorError, match="MeanHeadAttention is a mean over heads and is not"):
        type(mean).from_parts({}, {})
    with pytest.raises(OperatorError, match="a MeanHeadAttention is not stored; files hold"):
        (mean + mean).parts()


def test_an_inner_operator_that_is_not_there_is_named() -> None:
    with pytest.raises(
        OperatorError, match=r"no operator 'inner' is stored here; there are \['0'\]"
    ):
        operator_from("inner", {}, {"0": {}})


def test_an_item_of_a_batch_is_that_of_the_matrix(
    combination: tuple[Operators, Matrices],
) -> None:
    batch = combination[0](*operands((2,)))
    torch.testing.assert_close(batch.item(1).dense(), batch.dense()[1])
    with pytest.raises(OperatorError, match="has no batch axis"):
        batch.item(1).item(0)


def test_a_factor_is_one_number_or_one_for_each_head() -> None:
    with pytest.raises(OperatorError, match=r"factor has shape \(3,\); .* each of 2 heads"):
        ScaledAttention(operands()[0], torch.ones(3))


def test_the_one_head_of_a_mean_is_its_only_one() -> None:
    mean = operands()[0].mean_heads()
    assert mean.select_heads(0).shape == (1, 7, 7)
    with pytest.raises(OperatorError, match=r"head .* lies outside: this operator has 1"):
        mean.select_heads(1)


def test_limits_count_what_is_built() -> None:
    attention = operands()[0]
    for operator in (attention + attention, attention @ attention, 2.0 * attention, attention.T):
        with pytest.raises(OperatorError, match="over the limit of 97"):
            operator.dense(limit=97)


def test_a_thin_tile_of_a_product_is_a_thin_product() -> None:
    product = operands()[0] @ operands()[1]
    torch.testing.assert_close(product.tile(slice(None), [0], limit=14), product.dense()[..., :1])
    torch.testing.assert_close(
        product.tile([6], slice(None), limit=14), product.dense()[..., 6:, :]
    )
    with pytest.raises(OperatorError, match="over the limit of 13"):
        product.tile([6], [0], limit=13)
