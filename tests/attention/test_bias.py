"""Biases known by rule against biases entry by entry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import AlibiBias, Bias, DenseBias, RelativeBias
from attnscope.attention.bias import BIASES
from tests.attention.oracle import bias_array
from tests.attention.strategies import biases, normal

SIZES = (3, 6, 8)  # heads, queries, keys


def whole(bias: Bias, queries: int, keys: int) -> Tensor:
    added = bias.at(torch.arange(queries)[:, None], torch.arange(keys)[None, :])
    return added.double()


@pytest.fixture(
    params=["alibi", "relative", "shared relative", "dense", "shared dense", "batched dense"]
)
def bias(request: pytest.FixtureRequest) -> Bias:
    heads, queries, keys = SIZES
    return {
        "alibi": lambda: AlibiBias(normal(0, heads), 2),
        "relative": lambda: RelativeBias(normal(1, heads, queries + keys - 1), queries - 1),
        "shared relative": lambda: RelativeBias(
            normal(2, 1, 4), 1
        ),  # distances beyond its ends occur
        "dense": lambda: DenseBias(normal(3, heads, queries, keys)),
        "shared dense": lambda: DenseBias(normal(4, 1, queries, keys)),
        "batched dense": lambda: DenseBias(normal(5, 2, heads, queries, keys)),
    }[request.param]()


def test_entries_follow_the_rule(bias: Bias) -> None:
    torch.testing.assert_close(
        whole(bias, 6, 8).expand_as(bias_array(bias, *SIZES)), bias_array(bias, *SIZES)
    )


def test_transposing_exchanges_the_axes(bias: Bias) -> None:
    torch.testing.assert_close(whole(bias.transpose(), 8, 6), whole(bias, 6, 8).mT)
    torch.testing.assert_close(whole(bias.transpose().transpose(), 6, 8), whole(bias, 6, 8))


def test_scaling_multiplies(bias: Bias) -> None:
    torch.testing.assert_close(whole(bias.scaled(-1.5), 6, 8), whole(bias, 6, 8) * -1.5)


def test_heads_are_selected_in_order(bias: Bias) -> None:
    chosen = torch.tensor([2, 0])
    expected = bias_array(bias, *SIZES).expand(*bias_array(bias, *SIZES).shape[:-3], 3, 6, 8)[
        ..., [2, 0], :, :
    ]
    torch.testing.assert_close(whole(bias.select_heads(chosen), 6, 8).expand_as(expected), expected)


def test_one_item_has_no_batch_axis(bias: Bias) -> None:
    array = whole(bias, 6, 8)
    torch.testing.assert_close(whole(bias.item(1), 6, 8), array[1] if array.ndim == 4 else array)


def test_parts_build_the_same_bias_again(bias: Bias) -> None:
    tensors, facts = bias.parts()
    assert all(isinstance(value, int) for value in facts.values())
    again = BIASES[type(bias).__name__].from_parts(tensors, facts)
    torch.testing.assert_close(whole(again, 6, 8), whole(bias, 6, 8))


@settings(max_examples=40, deadline=None)
@given(biases((2,), 2, 5, 7), st.integers(0, 4), st.integers(0, 6))
def test_any_index_arrays_that_broadcast_will_do(bias: Bias, query: int, key: int) -> None:
    array = bias_array(bias, 2, 5, 7)
    entry = bias.at(torch.tensor([query]), torch.tensor([key])).double()
    expected = array[..., query, key].unsqueeze(-1)
    torch.testing.assert_close(entry.expand_as(expected), expected)


def test_alibi_counts_far_distances_exactly_in_any_type() -> None:
    bias = AlibiBias(torch.tensor([0.25], dtype=torch.bfloat16))
    assert float(bias.at(torch.tensor([1001]), torch.tensor([0]))) == -250.25


def test_a_relative_table_goes_on_with_the_numbers_at_its_ends() -> None:
    bias = RelativeBias(torch.tensor([[1.0, 2.0, 3.0]]), zero=1)
    assert bias.at(torch.tensor([5, 5, 5, 5, 5]), torch.tensor([0, 4, 5, 6, 9])).tolist() == [
        [1, 1, 2, 3, 3]
    ]
