"""What every operator refuses and shares: limits, error texts, storing and building again."""

import json

import pytest
import torch

from attnscope.attention import (
    OPERATORS,
    AlibiBias,
    AttentionOperator,
    DenseAttention,
    DenseBias,
    Mask,
    OperatorError,
    OuterAttention,
    RelativeBias,
    RowScaledAttention,
    ScaledAttention,
    SoftmaxAttention,
    SumAttention,
    key_position,
)
from tests.attention.strategies import normal


def softmax(queries: int = 5, keys: int = 5, **options: object) -> SoftmaxAttention:
    return SoftmaxAttention(normal(0, 2, queries, 3), normal(1, 1, keys, 3), **options)


@pytest.mark.parametrize("index", [5, -6, [0, 7], torch.tensor([-9])])
def test_an_index_outside_is_refused_with_what_exists(index: int) -> None:
    for ask in (
        lambda: softmax().rows(index),
        lambda: DenseAttention(torch.eye(5)[None]).rows(index),
    ):
        with pytest.raises(
            OperatorError, match=r"query .* lies outside: this operator has 5, from 0 to 4"
        ):
            ask()
    with pytest.raises(OperatorError, match=r"head .* lies outside: this operator has 2"):
        softmax().select_heads(index)


def test_a_large_dense_block_is_refused_with_what_to_ask_instead() -> None:
    zeros = torch.zeros(1, 2, 20_000, 1)
    attention = SoftmaxAttention(zeros[0], zeros[0])
    with pytest.raises(
        OperatorError, match=r"800,000,000 entries, over the limit .* columns\(\) or band\(\)"
    ):
        attention.dense()
    with pytest.raises(OperatorError, match="has 50 entries, over the limit of 49"):
        softmax().tile(slice(None), slice(None), limit=49)
    assert softmax().dense(limit=50).shape == (2, 5, 5)


def test_entropy_of_rows_with_a_sink_is_refused_until_normalized() -> None:
    attention = softmax(sinks=normal(3, 2))
    with pytest.raises(
        OperatorError, match=r"entropy needs rows that are distributions.*normalized\(\)"
    ):
        attention.entropy()
    assert attention.normalized().entropy().isfinite().all()


def test_a_band_needs_one_sequence_and_a_width() -> None:
    cross = softmax(5, 7, causal=False, key_axis="patch")
    for attention in (cross, DenseAttention(torch.ones(1, 2, 3), offset=None, key_axis="patch")):
        with pytest.raises(
            OperatorError, match=r"band needs .* one sequence; .* maps patch keys to token queries"
        ):
            attention.band(2)
    for attention in (softmax(), DenseAttention(torch.eye(3)[None])):
        with pytest.raises(
            OperatorError, match="band width is 0; it counts diagonals and starts at 1"
        ):
            attention.band(0)


def test_power_sums_need_a_positive_exponent_and_no_signs() -> None:
    with pytest.raises(OperatorError, match="exponent is positive"):
        softmax().power_sum(0.0)
    with pytest.raises(OperatorError, match="entries that are not negative"):
        DenseAttention(-torch.eye(3)[None]).power_sum(2.0)


def test_only_softmax_attention_has_a_log_normalizer() -> None:
    with pytest.raises(OperatorError, match="only softmax attention does"):
        DenseAttention(torch.eye(3)[None]).log_normalizer()


def test_signed_rows_are_not_normalized() -> None:
    with pytest.raises(OperatorError, match="row sums may vanish"):
        DenseAttention(-torch.eye(3)[None]).normalized()


@pytest.mark.parametrize(
    ("query", "key", "options", "text"),
    [
        (
            (2, 5, 3),
            (2, 5, 4),
            {},
            r"do not fit; they need the shapes \(\*batch, head, query, dim\)",
        ),
        ((3, 5, 4), (2, 5, 4), {}, "3 query heads cannot share 2 key heads evenly"),
        ((2, 5, 3), (2, 5, 3), {"sinks": torch.zeros(3)}, "one logit for each of 2 heads"),
        ((2, 5, 3), (2, 5, 3), {"causal": True, "mask": Mask()}, "give causal= or mask=, not both"),
        (
            (2, 5, 3),
            (2, 5, 3),
            {"mask": Mask(key_valid=torch.ones(4) > 0)},
            r"key_valid has shape \(4,\)",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    query: tuple, key: tuple, options: dict, text: str
) -> None:
    build = SoftmaxAttention.__init__.__wrapped__  # past the shape check of the tests
    with pytest.raises(OperatorError, match=text):
        build(object.__new__(SoftmaxAttention), torch.zeros(query), torch.zeros(key), **options)


def test_factors_of_two_types_are_refused() -> None:
    with pytest.raises(OperatorError, match=r"query is torch.float32, key is torch.bfloat16"):
        SoftmaxAttention(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3).bfloat16())


@pytest.mark.parametrize("shape", [(3, 5, 2), (2, 4, 2), (2, 6, 2), (1, 2, 5, 2)])
def test_values_and_weights_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    given = torch.zeros(shape, dtype=torch.float64)
    for ask in (SoftmaxAttention.apply, SoftmaxAttention.apply_transpose):
        with pytest.raises(
            OperatorError, match=r"do not fit SoftmaxAttention\(heads=2, queries=5, keys=5"
        ):
            ask.__wrapped__(softmax(), given)


def test_it_says_what_it_is() -> None:
    assert repr(softmax(5, 7)) == "SoftmaxAttention(heads=2, queries=5, keys=7, float64)"


def stored_examples() -> dict[str, AttentionOperator]:
    image = torch.tensor([-1, 0, 0, -1, -1])
    outer = OuterAttention(normal(0, 2, 5, 4), normal(1, 1, 5, 4))
    batched = SoftmaxAttention(
        normal(0, 2, 3, 2, 5, 3),
        normal(1, 2, 3, 1, 5, 3),
        mask=Mask(after=0, key_valid=torch.ones(2, 3, 5) > 0),
    )
    return {
        "dense": DenseAttention(normal(0, 2, 3, 4).abs(), query_axis="probe"),
        "outer": OuterAttention(normal(0, 2, 3, 4), normal(1, 1, 5, 4), offset=2),
        "softmax": softmax(3, 5),
        "cross": softmax(3, 5, causal=False, key_axis="memory"),
        "window": softmax(mask=Mask(before=2, after=0, chunk=4)),
        "arrays": softmax(
            mask=Mask(after=0, query_block=image, key_block=image, key_valid=image < 0)
        ),
        "softcap": softmax(softcap=2.0, scale=0.3),
        "sinks": softmax(sinks=normal(3, 2)),
        "alibi": softmax(bias=AlibiBias(normal(3, 2), 1)),
        "relative": softmax(bias=RelativeBias(normal(3, 2, 9), 4)),
        "dense bias": softmax(bias=DenseBias(normal(3, 1, 5, 5))),
        "batched": batched,
        "sum": softmax() + outer,
        "mixture": SumAttention([0.5 * softmax(), 0.5 * softmax(scale=0.3)], stochastic=True),
        "product": softmax() @ outer.T,
        "heads": ScaledAttention(softmax(), torch.tensor([0.5, 2.0])),
        "rows": RowScaledAttention(softmax(), normal(6, 2, 5)),
    }


@pytest.mark.parametrize("name", stored_examples())
def test_parts_build_the_same_operator_again(name: str) -> None:
    operator = stored_examples()[name]
    tensors, facts = operator.parts()
    again = OPERATORS[type(operator).__name__].from_parts(tensors, json.loads(json.dumps(facts)))
    assert type(again) is type(operator)
    torch.testing.assert_close(again.dense(), operator.dense())
    torch.testing.assert_close(again.column_mass(), operator.column_mass())
    for fact in (
        "shape",
        "dtype",
        "stochastic",
        "signed",
        "causal",
        "offset",
        "query_axis",
        "key_axis",
    ):
        assert getattr(again, fact) == getattr(operator, fact)


def test_a_stored_normalizer_is_used_and_not_computed_again() -> None:
    tensors, facts = softmax().parts()
    tensors["log_normalizer"] = tensors["log_normalizer"] + 1.0
    again = SoftmaxAttention.from_parts(tensors, facts)
    torch.testing.assert_close(
        again.rows([3]).sum(-1), torch.full((2, 1), 1 / torch.e, dtype=torch.float64)
    )


def test_one_item_of_a_batch_keeps_what_is_known_of_it() -> None:
    query, key = normal(0, 2, 2, 5, 3), normal(1, 2, 1, 5, 3)
    valid = torch.tensor([[True] * 5, [False] * 2 + [True] * 3])
    batch = SoftmaxAttention(
        query, key, mask=Mask(after=0, key_valid=valid), bias=DenseBias(normal(2, 2, 1, 5, 5))
    )
    fresh = batch.item(1)
    batch.log_normalizer()
    item = batch.item(1)
    assert item.shape == (2, 5, 5)
    for one in (fresh, item):
        torch.testing.assert_close(one.dense(), batch.dense()[1])
        torch.testing.assert_close(one.log_normalizer(), batch.log_normalizer()[1])


def test_an_item_needs_a_batch() -> None:
    with pytest.raises(OperatorError, match="has no batch axis to take an item of"):
        softmax().item(0)


def test_items_of_shared_arrays_keep_them() -> None:
    query, key = normal(0, 2, 1, 4, 3), normal(1, 2, 1, 4, 3)
    for valid in (
        torch.tensor([False, True, True, True]),
        torch.tensor([[False, True, True, True]]),
    ):
        batch = SoftmaxAttention(query, key, mask=Mask(after=0, key_valid=valid))
        torch.testing.assert_close(batch.item(1).dense(), batch.dense()[1])


def test_an_item_remembers_what_rode_and_leaves_the_graph() -> None:
    query, key = normal(0, 2, 1, 4, 3).requires_grad_(), normal(1, 2, 1, 4, 3)
    batch = SoftmaxAttention(query, key)
    batch.attend(key, riders=[key_position])
    item = batch.item(0)
    assert not item.query.requires_grad
    assert item.key_moment(key_position) is item.key_moment(key_position)
    torch.testing.assert_close(item.key_moment(key_position), batch.key_moment(key_position)[0])


def test_what_is_known_is_not_replaced_by_a_coarser_call() -> None:
    query, key = normal(0, 1, 40, 8).bfloat16(), normal(1, 1, 40, 8).bfloat16()
    attention = SoftmaxAttention(query, key)
    before = attention.log_normalizer()
    attention.attend(key)
    assert torch.equal(attention.log_normalizer(), before)
