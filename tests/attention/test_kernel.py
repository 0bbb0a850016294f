"""`KernelAttention` and the causal product under it, against the matrix of feature products."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.attention import DenseAttention, KernelAttention, OperatorError, SoftmaxAttention
from attnscope.attention.causal_product import causal_product
from tests.attention.oracle import band_of
from tests.attention.strategies import normal


def slow_map(query: Tensor, key: Tensor, *, causal: bool, normalize: bool, offset: int) -> Tensor:
    """Return the map entry by entry: products, then hiding, then division by what is left."""
    products = torch.einsum("...td,...jd->...tj", query, key)
    for t in range(query.shape[-2]):
        for j in range(key.shape[-2]):
            if causal and j > t + offset:
                products[..., t, j] = 0.0
    total = products.sum(-1, keepdim=True)
    return torch.where(total == 0, 0.0, products / total) if normalize else products


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(), (2,), (2, 1)]),
    st.sampled_from(["positive", "signed"]),
    st.booleans(),
    st.booleans(),
    st.tuples(st.integers(1, 150), st.integers(1, 150), st.integers(-4, 70)),
)
def test_every_method_is_that_of_the_map(
    batch: tuple[int, ...],
    features: str,
    causal: bool,
    normalize: bool,
    sizes: tuple[int, int, int],
) -> None:
    queries, keys, offset = sizes
    query, key = normal(0, *batch, 2, queries, 3), normal(1, *batch, 2, keys, 3)
    if features == "positive":
        query, key = query.exp(), key.exp()
    elif normalize:  # a last feature keeps the sums away from 0
        query = torch.cat([query, torch.full_like(query[..., :1], 9.0)], dim=-1)
        key = torch.cat([key, torch.full_like(key[..., :1], 9.0)], dim=-1)
    options = {"causal": causal, "normalize": normalize, "offset": offset}
    attention = KernelAttention(query, key, **options)
    pattern = slow_map(query, key, **options)
    values, weights = normal(2, *batch, 1, keys, 2), normal(3, *batch, 2, queries, 2)
    rows, columns = [queries - 1, 0], [0]
    for actual, expected in [
        (attention.dense(), pattern),
        (attention.apply(values), pattern @ values),
        (attention.apply_transpose(weights), pattern.mT @ weights),
        (attention.row_mass(), pattern.sum(-1)),
        (attention.column_mass(), pattern.sum(-2)),
        (attention.absolute_mass(), pattern.abs().sum(-1)),
        (attention.band(5), band_of(pattern, 5, offset)),
        (attention.tile(rows, columns), pattern[..., rows, :][..., columns]),
        (attention.select_heads([1]).dense(), pattern[..., 1:, :, :]),
        (attention.valid_queries.expand(pattern.shape[:-1]), (pattern != 0).any(-1))
        if normalize
        else (attention.valid_queries.all(), torch.tensor(True)),
    ]:
        torch.testing.assert_close(actual, expected)
    stochastic = normalize and features == "positive"
    assert (attention.stochastic, attention.signed) == (stochastic, features == "signed")
    if not attention.signed:
        torch.testing.assert_close(attention.power_sum(2.0), pattern.square().sum(-1))
        torch.testing.assert_close(attention.power_sum(0.5), pattern.sqrt().sum(-1))
    if stochastic:
        dense = DenseAttention(pattern, offset=offset)
        torch.testing.assert_close(attention.entropy(), dense.entropy(), equal_nan=True)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_transposition_moves_across_the_inner_product(seed: int, causal: bool) -> None:
    query, key = normal(seed, 2, 70, 4), normal(seed + 1, 2, 70, 4)
    attention = KernelAttention(query, key, causal=causal, normalize=False)
    values, weights = normal(seed + 2, 2, 70, 3), normal(seed + 3, 2, 70, 3)
    left = (attention.apply(values) * weights).sum()
    torch.testing.assert_close(left, (values * attention.apply_transpose(weights)).sum())


def test_an_extra_feature_shifts_every_row() -> None:
    """Keys 1 and 0 and the query q, unscaled: the map is `q (k - 1/2) + 1/2`."""
    key = torch.tensor([[[0.5, 0.5], [-0.5, 0.5]]])
    attention = KernelAttention(torch.tensor([[[1.0, 1.0], [2.0, 1.0]]]), key, normalize=False)
    assert attention.dense().tolist() == [[[1.0, 0.0], [1.5, -0.5]]]
    assert attention.row_mass().tolist() == [[1.0, 1.0]]
    assert (attention.signed, attention.stochastic) == (True, False)


def test_a_row_without_features_is_empty() -> None:
    attention = KernelAttention(torch.tensor([[[0.0], [2.0]]]), torch.tensor([[[1.0], [3.0]]]))
    assert attention.valid_queries.tolist() == [[False, True]]
    assert attention.dense().tolist() == [[[0.0, 0.0], [0.25, 0.75]]]
    assert attention.entropy().isnan().tolist() == [[True, False]]


def test_random_features_of_the_exponential_come_near_softmax() -> None:
    """Positive features `exp(w . x - |x|^2 / 2)` have the mean product `exp(q . k)`."""
    query, key = 0.3 * normal(0, 1, 12, 4), 0.3 * normal(1, 1, 12, 4)
    directions = normal(2, 4, 40_000)

    def features(x: Tensor) -> Tensor:
        return (x @ directions - x.square().sum(-1, keepdim=True) / 2).exp()

    attention = KernelAttention(features(query), features(key), causal=True)
    softmax = SoftmaxAttention(query, key, 1.0)
    torch.testing.assert_close(attention.dense(), softmax.dense(), atol=0.02, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_gradients_are_those_of_finite_differences(causal: bool, normalize: bool) -> None:
    factors = [normal(seed, 1, 4, 2).exp().requires_grad_() for seed in range(3)]

    def read(query: Tensor, key: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        attention = KernelAttention(query, key, causal=causal, normalize=normalize)
        statistics = attention.power_sum(2.0), attention.tile([2, 1], [0, 1])
        return attention.apply(values), attention.apply_transpose(values), *statistics

    assert torch.autograd.gradcheck(read, factors)


def test_stored_parts_build_it_again() -> None:
    attention = KernelAttention(
        normal(0, 2, 3, 4), normal(1, 2, 5, 4), normalize=False, offset=None, key_axis="memory"
    )
    again = KernelAttention.from_parts(*attention.parts())
    torch.testing.assert_close(again.dense(), attention.dense())
    assert (again.offset, again.key_axis, again.normalize) == (None, "memory", False)


def test_an_item_is_one_of_the_batch_outside_the_graph() -> None:
    query, key = normal(0, 2, 1, 3, 4).exp().requires_grad_(), normal(1, 2, 1, 3, 4).exp()
    attention = KernelAttention(query, key, causal=True)
    item = attention.item(1)
    torch.testing.assert_close(item.dense(), attention.dense()[1])
    assert item.causal
    assert not item.query.requires_grad
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


def test_sixteen_bit_features_are_multiplied_in_thirty_two() -> None:
    query = normal(0, 1, 80, 4, dtype=torch.bfloat16).exp()
    attention = KernelAttention(query, query, causal=True)
    exact = KernelAttention(query.double(), query.double(), causal=True)
    assert attention.dtype == attention.apply(query).dtype == torch.float32
    torch.testing.assert_close(attention.apply(query), exact.apply(query).float())


def test_a_long_sequence_never_has_a_map() -> None:
    query, key = normal(0, 1, 20_000, 2, dtype=torch.float32).exp(), torch.ones(1, 20_000, 2)
    attention = KernelAttention(query, key, causal=True)
    with pytest.raises(OperatorError, match="over the limit"):
        attention.dense()
    counts = torch.arange(1, 20_001)
    torch.testing.assert_close(attention.power_sum(2.0)[0], 1 / counts)  # equal keys: uniform rows
    torch.testing.assert_close(
        attention.apply(counts.reshape(1, -1, 1).float()).flatten(), (counts + 1) / 2
    )
    assert attention.rows([9]).sum() == pytest.approx(1.0)


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            sizes.extend(r.numel() for r in [result] if isinstance(r, Tensor))
            return result

    factor = torch.rand(1, 4096, 8)
    attention = KernelAttention(factor, factor, causal=True)
    with Watch():
        attention.apply(factor)
        attention.apply_transpose(factor)
    assert max(sizes) <= 4096 * 64


def test_a_causal_product_of_any_lengths_is_a_triangle() -> None:
    for queries, keys, offset in [(130, 64, 0), (1, 200, 199), (3, 5, -2), (5, 3, 9)]:
        left, right, values = normal(0, 1, queries, 2), normal(1, 1, keys, 2), normal(2, 1, keys, 3)
        expected = (left @ right.mT).tril(offset) @ values
        torch.testing.assert_close(causal_product(left, right, values, offset), expected)


@pytest.mark.parametrize(
    ("query", "key"), [((2, 4, 3), (2, 4, 2)), ((2, 4, 3), (1, 4, 3)), ((4, 3), (4, 3))]
)
def test_features_that_do_not_fit_are_refused(query: tuple[int, ...], key: tuple[int, ...]) -> None:
    build = KernelAttention.__init__.__wrapped__  # past the shape check of the tests
    with pytest.raises(OperatorError, match=r"need the shapes \(\*batch, head, query, dim\)"):
        build(object.__new__(KernelAttention), torch.zeros(query), torch.zeros(key))


def test_causality_needs_positions() -> None:
    with pytest.raises(OperatorError, match="positions of one sequence"):
        KernelAttention(torch.ones(1, 2, 1), torch.ones(1, 2, 1), causal=True, offset=None)
