"""Every method of `WindowedAttention` against windows written out slot by slot in loops."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import (
    DenseAttention,
    DenseBias,
    Mask,
    OperatorError,
    SoftmaxAttention,
    WindowedAttention,
    key_position,
)
from attnscope.attention.window_table import WindowTable
from tests.attention.oracle import band_of, moment
from tests.attention.strategies import normal

SETTINGS = settings(max_examples=25, deadline=None, report_multiple_bugs=False)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnscope.attention.window_matrix._BLOCK_ELEMENTS", 40)
        patch.setattr("attnscope.attention.tile._BLOCK_ELEMENTS", 1)
        yield


@dataclass
class Windows:
    """What an operator is built from; built outside of the strategy, where beartype may draw."""

    build: Callable[[], Any]
    query_index: Tensor
    key_index: Tensor
    queries: int
    keys: int

    @cached_property
    def inner(self) -> Any:
        return self.build()

    def operator(self, **options: Any) -> WindowedAttention:
        return WindowedAttention(
            self.inner, self.query_index, self.key_index, self.queries, self.keys, **options
        )

    def pattern(self) -> Tensor:
        """Add each slot's weight to its query's row and its key's column."""
        weights = self.inner.dense()
        batch, heads = weights.shape[:-4], weights.shape[-3]
        pattern = torch.zeros(*batch, heads, self.queries, self.keys, dtype=weights.dtype)
        for item in product(*map(range, batch)):
            tables = [t[item] if t.ndim > 2 else t for t in (self.query_index, self.key_index)]
            for window, t, s in product(*map(range, (weights.shape[-4], *weights.shape[-2:]))):
                query, key = int(tables[0][window, t]), int(tables[1][window, s])
                if query >= 0 and key >= 0:
                    pattern[(*item, slice(None), query, key)] += weights[
                        (*item, window, slice(None), t, s)
                    ]
        return pattern


Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def windows(draw: Draw, stochastic: bool | None = None) -> Windows:
    """Return windows with holes, halos and repeats, the holes masked or holding weight."""
    batch = draw(st.sampled_from([(), (2,), (2, 2)]))
    count, slots, key_slots = (draw(st.integers(1, 4)) for _ in range(3))
    queries, keys = draw(st.integers(1, count * slots + 2)), draw(st.integers(1, 9))
    lead = batch if draw(st.booleans()) else ()
    seed = draw(st.integers(0, 2**31))
    query_index = _shuffled(seed, lead, count * slots, queries).reshape(*lead, count, slots)
    low = draw(st.sampled_from([-1, 0]))
    key_index = normal(seed + 1, *lead, count, key_slots).mul(9).long() % (keys - low) + low
    stochastic = draw(st.booleans()) if stochastic is None else stochastic
    valid = (key_index >= 0).expand(*batch, count, key_slots) if stochastic else None
    kv_heads, is_dense, biased = (
        draw(st.sampled_from([1, 2])),
        draw(st.booleans()),
        draw(st.booleans()),
    )
    sizes = (*batch, count), slots, key_slots

    def build() -> Any:
        return (
            _dense(seed, *sizes, valid)
            if is_dense
            else _softmax(seed, *sizes, valid, kv_heads, biased)
        )

    return Windows(build, query_index, key_index, queries, keys)


def _dense(
    seed: int, lead: tuple[int, ...], slots: int, key_slots: int, valid: Tensor | None
) -> DenseAttention:
    scores = normal(seed + 2, *lead, 2, slots, key_slots)
    if valid is not None:
        scores = scores.masked_fill(~valid[..., None, None, :], -torch.inf)
    return DenseAttention(scores.softmax(-1).nan_to_num(0.0), offset=None)


def _softmax(
    seed: int,
    lead: tuple[int, ...],
    slots: int,
    key_slots: int,
    valid: Tensor | None,
    kv_heads: int,
    biased: bool,
) -> SoftmaxAttention:
    return SoftmaxAttention(
        normal(seed + 4, *lead, 2, slots, 3),
        normal(seed + 5, *lead, kv_heads, key_slots, 3),
        mask=Mask(key_valid=valid),
        bias=DenseBias(normal(seed + 3, *lead, 1, slots, key_slots)) if biased else None,
    )


def _shuffled(seed: int, lead: tuple[int, ...], places: int, length: int) -> Tensor:
    """Return each position once at most, in any order, with -1 in the places left over."""
    most = max(places, length)
    order = normal(seed, *lead, most).argsort(-1)
    return order.masked_fill(order >= length, -1)[..., :places]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=1e-9, atol=1e-9, equal_nan=True
    )


@SETTINGS
@given(windows(), st.integers(1, 4), st.booleans())
def test_products_with_values_and_weights(case: Windows, width: int, shared: bool) -> None:
    operator, pattern = case.operator(), case.pattern()
    lead = *pattern.shape[:-3], 1 if shared else 2
    values, weights = normal(1, *lead, case.keys, width), normal(2, *lead, case.queries, width)
    close(operator.apply(values), pattern @ values)
    close(operator.apply_transpose(weights), pattern.mT @ weights)
    close(operator.column_mass(), pattern.sum(-2))
    close(operator.row_mass(), pattern.sum(-1))
    inner = (weights * operator.apply(values)).sum()
    close(inner, (operator.apply_transpose(weights) * values).sum())


@SETTINGS
@given(windows(), st.data())
def test_slices_are_entries_of_the_map(case: Windows, data: st.DataObject) -> None:
    operator, pattern = case.operator(offset=1), case.pattern()
    some = [
        data.draw(st.lists(st.integers(-size, size - 1), max_size=6)) for size in pattern.shape[-2:]
    ]
    close(operator.tile(*some), pattern[..., some[0], :][..., some[1]])
    close(operator.rows(some[0]), pattern[..., some[0], :])
    close(operator.columns(some[1]), pattern[..., some[1]])
    close(operator.dense(), pattern)
    for width in (1, 3, 20):
        close(operator.band(width), band_of(pattern, width, 1))
    close(torch.cat([rows for _, rows in operator.blocks()], dim=-2), pattern)


@SETTINGS
@given(windows(stochastic=True), st.floats(0.4, 3.0))
def test_statistics_of_rows(case: Windows, exponent: float) -> None:
    operator, pattern = case.operator(), case.pattern()
    valid = pattern.sum(-1) > 0
    entropy = -torch.special.xlogy(pattern, pattern).sum(-1)
    assert operator.stochastic
    assert torch.equal(operator.valid_queries.expand_as(valid), valid)
    close(operator.entropy(), entropy.masked_fill(~valid, torch.nan))
    close(operator.power_sum(exponent), pattern.pow(exponent).sum(-1))
    close(operator.key_moment(key_position), moment(pattern, torch.arange(case.keys)))
    close(operator.absolute_mass(), pattern.sum(-1))


@SETTINGS
@given(windows(stochastic=False))
def test_weight_on_slots_without_a_key_is_lost_and_known(case: Windows) -> None:
    operator, pattern = case.operator(), case.pattern()
    placed = torch.zeros(*pattern.shape[:-3], 1, case.queries, dtype=torch.bool)
    placed |= WindowTable(case.query_index, case.queries, pattern.shape[:-3]).present
    lost = (pattern.sum(-1) - placed.double()).abs() > 1e-9
    assert operator.stochastic == (not bool(lost.any()))
    close(operator.power_sum(2.0), pattern.square().sum(-1))
    normalized = (pattern / pattern.sum(-1, keepdim=True)).nan_to_num(0.0)
    entropy = -torch.special.xlogy(normalized, normalized).sum(-1)
    close(operator.normalized().dense(), normalized)
    close(operator.normalized().entropy(), entropy.masked_fill(pattern.sum(-1) == 0, torch.nan))
    if not operator.stochastic:
        with pytest.raises(OperatorError, match="rows that are distributions"):
            operator.entropy()


@SETTINGS
@given(windows(), st.lists(st.integers(-2, 1), min_size=1, max_size=3))
def test_heads_items_and_stored_parts(case: Windows, heads: list[int]) -> None:
    operator, pattern = (
        case.operator(offset=2, query_axis="patch", key_axis="patch"),
        case.pattern(),
    )
    close(operator.select_heads(heads).dense(), pattern[..., heads, :, :])
    while operator.inner.dense().ndim > 4:
        operator, pattern = operator.item(1), pattern[1]
        close(operator.dense(), pattern)
    with pytest.raises(OperatorError, match="no batch axis"):
        operator.item(0)
    tensors, facts = operator.parts()
    for name, tensor in tensors.items():
        assert tensor.ndim < 3 or 2 % len(tensor) == 0, f"{name} does not lead with heads"
    again = WindowedAttention.from_parts(tensors, facts)
    close(again.dense(), pattern)
    assert (again.offset, again.query_axis, again.key_axis) == (2, "patch", "patch")


def test_a_mask_entry_by_entry_is_stored_too() -> None:
    table = torch.arange(6).reshape(2, 3)
    mask = Mask(allowed=torch.tensor([[[1, 0, 1]] * 3, [[1, 1, 0]] * 3]).bool())
    inner = SoftmaxAttention(normal(0, 2, 1, 3, 4), normal(1, 2, 1, 3, 4), mask=mask)
    operator = WindowedAttention(inner, table, table, 6, 6)
    again = WindowedAttention.from_parts(*operator.parts())
    close(again.dense(), operator.dense())
    assert not again.columns([1, 5]).any()


def test_the_log_normalizer_is_that_of_the_window() -> None:
    query, key = normal(0, 2, 1, 2, 4), normal(1, 2, 1, 2, 4)
    inner = SoftmaxAttention(query, key, causal=False)
    operator = WindowedAttention(
        inner, torch.tensor([[3, 1], [0, -1]]), torch.zeros(2, 2).long(), 4, 1
    )
    expected = (query @ key.mT / 2).logsumexp(-1)
    found = operator.log_normalizer()[0]
    close(found[[3, 1, 0]], expected.flatten()[:3])
    assert found[2] == -torch.inf
    assert operator.entropy()[0, 2].isnan()
    with pytest.raises(OperatorError, match="no log normalizer"):
        WindowedAttention(
            DenseAttention(inner.dense()), operator.query_index, operator.key_index, 4, 1
        ).log_normalizer()


def test_a_key_that_a_window_holds_twice_counts_once() -> None:
    inner = SoftmaxAttention(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 4, 2), causal=False)
    operator = WindowedAttention(inner, torch.tensor([[0]]), torch.tensor([[0, 1, 1, 1]]), 1, 2)
    assert operator.dense().tolist() == [[[0.25, 0.75]]]
    assert operator.power_sum(2.0).tolist() == [[0.625]]
    assert round(float(operator.entropy()), 6) == 0.562335  # ln 4 - 0.75 ln 3


def test_causality_is_told_from_the_tables() -> None:
    inner = SoftmaxAttention(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), causal=False)
    queries, past = torch.tensor([[2, 3], [4, 5]]), torch.tensor([[0, 1], [2, 3]])
    assert WindowedAttention(inner, queries, past, 6, 6, offset=0).causal
    assert not WindowedAttention(inner, queries, past, 6, 6).causal
    assert not WindowedAttention(inner, queries, queries, 6, 6, offset=0).causal


def test_gradients_flow_to_factors_and_values() -> None:
    query_index, key_index = torch.tensor([[0, 2], [1, -1]]), torch.tensor([[0, 1, 1], [2, 0, -1]])

    def read(query: Tensor, key: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        mask = Mask(key_valid=key_index >= 0)
        inner = SoftmaxAttention(query, key, mask=mask)
        operator = WindowedAttention(inner, query_index, key_index, 3, 3, offset=0)
        entropy = operator.entropy()
        return operator.apply(values), operator.column_mass(), operator.dense(), entropy

    factors = normal(0, 2, 1, 2, 2), normal(1, 2, 1, 3, 2), normal(2, 1, 3, 1)
    assert torch.autograd.gradcheck(
        read, [factor.requires_grad_() for factor in factors], fast_mode=True
    )


def test_bfloat16_factors_keep_their_type_in_outputs_alone() -> None:
    table = torch.arange(8).reshape(2, 4)
    query, key = (normal(seed, 2, 2, 4, 8, dtype=torch.bfloat16) for seed in (0, 1))
    operator = WindowedAttention(SoftmaxAttention(query, key, causal=False), table, table, 8, 8)
    exact = WindowedAttention(
        SoftmaxAttention(query.double(), key.double(), causal=False), table, table, 8, 8
    )
    values = normal(2, 2, 8, 4, dtype=torch.bfloat16)
    assert operator.apply(values).dtype == torch.bfloat16
    assert exact.apply(values.double()).dtype == torch.float64
    for name in ("entropy", "column_mass", "dense", "log_normalizer"):
        statistic = getattr(operator, name)()
        assert statistic.dtype == torch.float32
        torch.testing.assert_close(statistic.double(), getattr(exact, name)(), rtol=1e-4, atol=1e-4)


def test_a_map_too_large_to_hold_is_never_held() -> None:
    length, width = 2**15, 8
    table = torch.arange(length).reshape(-1, 64)
    factors = torch.randn(2, len(table), 1, 64, width)
    operator = WindowedAttention(
        SoftmaxAttention(*factors, causal=False), table, table, length, length, offset=0
    )
    with pytest.raises(OperatorError, match="over the limit"):
        operator.dense()
    torch.testing.assert_close(operator.column_mass().sum(), torch.tensor(float(length)))
    assert operator.entropy().shape == (1, length)
    assert operator.tile([70, 5], [64, 3, 127]).count_nonzero() == 3
    assert operator.rows([length - 1])[0, 0, -64:].sum().isclose(torch.tensor(1.0))


Index = list[list[int]]


@pytest.mark.parametrize(
    ("query_index", "key_index", "message"),
    [
        ([[0, 0]], [[0, 1]], "a query stands in two slots"),
        ([[0, 1]], [[0, 2]], r"names the positions 0 to 2; there are 2, from 0 to 1"),
        ([[0, -2]], [[0, 1]], "names the positions -2 to 0"),
        (
            [[0], [1]],
            [[0], [1]],
            r"the tables have \(window, slot\) \(2, 1\) and \(2, 1\); .* has 1",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    query_index: Index, key_index: Index, message: str
) -> None:
    inner = DenseAttention(torch.eye(2)[None, None])
    with pytest.raises(OperatorError, match=message):
        WindowedAttention(inner, torch.tensor(query_index), torch.tensor(key_index), 2, 2)


def test_other_inner_operators_and_batches_are_refused() -> None:
    inner, table = DenseAttention(torch.eye(2)[None, None]), torch.tensor([[0, 1]])
    with pytest.raises(OperatorError, match="it takes a SoftmaxAttention or a DenseAttention"):
        WindowedAttention(DenseAttention(torch.eye(2)[None]), table, table, 2, 2)
    with pytest.raises(OperatorError, match="alone or behind the batch axes"):
        WindowTable(table.expand(3, 1, 2), 2, torch.Size((2,)))
    operator = WindowedAttention(inner, table, table, 2, 2)
    assert "1 windows of 2 x 2" in repr(operator)
    with pytest.raises(OperatorError, match="maps token keys to token queries"):
        operator.band(1)


def test_a_bias_that_is_learned_gets_its_gradient() -> None:
    """As in Swin: one bias per head, shared by all windows and items."""
    table = torch.arange(6).reshape(2, 3)
    query, key, values = normal(0, 2, 2, 2, 3, 4), normal(1, 2, 2, 2, 3, 4), normal(2, 2, 2, 6, 5)
    bias = normal(3, 2, 3, 3).requires_grad_()
    inner = SoftmaxAttention(query, key, causal=False, bias=DenseBias(bias))
    (found,) = torch.autograd.grad(
        WindowedAttention(inner, table, table, 6, 6).apply(values).square().sum(), bias
    )
    pattern = (query @ key.mT / 2 + bias).softmax(-1)
    windows = values.unflatten(-2, (2, 3)).transpose(1, 2)
    (expected,) = torch.autograd.grad((pattern @ windows).square().sum(), bias)
    close(found, expected)
