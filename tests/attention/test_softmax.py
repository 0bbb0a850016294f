"""Every method of `SoftmaxAttention` against the slow oracle, in blocks small enough to cross."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import DenseBias, KeyFunction, SoftmaxAttention, key_position
from tests.attention.oracle import Case, band_of, case_pattern, moment
from tests.attention.strategies import cases, normal

SETTINGS = settings(max_examples=40, deadline=None, report_multiple_bugs=False)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnscope.attention.scores._FUSED_BLOCK", 5)
        patch.setattr("attnscope.attention.tile._BLOCK_ELEMENTS", 1)  # 16 rows, the least
        yield


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def values_for(case: Case, side: int, heads: int, seed: int, width: int) -> Tensor:
    return normal(seed, *case.batch, heads, case.sizes[side], width, dtype=case.query.dtype)


HEADS = st.sampled_from(["one", "key", "all"])


@SETTINGS
@given(cases(), HEADS, st.integers(1, 9))
def test_apply_is_the_product_with_the_map(case: Case, heads: str, width: int) -> None:
    count = {"one": 1, "key": case.key.shape[-3], "all": case.heads}[heads]
    values = values_for(case, 1, count, 5, width)
    expected = case.pattern() @ values.repeat_interleave(case.heads // count, dim=-3)
    close(case.operator().apply(values), expected)


@SETTINGS
@given(cases(), st.booleans(), st.integers(1, 9))
def test_apply_transpose_is_the_product_with_the_transposed_map(
    case: Case, shared: bool, width: int
) -> None:
    weights = values_for(case, 0, 1 if shared else case.heads, 6, width)
    operator = case.operator()
    close(operator.apply_transpose(weights), case.pattern().mT @ weights)
    close(operator.T.apply(weights), case.pattern().mT @ weights)
    close(operator.column_mass(), case.pattern().sum(-2))


@SETTINGS
@given(cases(), st.data())
def test_slices_are_entries_of_the_map(case: Case, data: st.DataObject) -> None:
    operator, pattern = case.operator(), case.pattern()
    some = [data.draw(st.lists(st.integers(-size, size - 1), max_size=20)) for size in case.sizes]
    close(operator.tile(*some), pattern[..., some[0], :][..., some[1]])
    close(operator.rows(some[0]), pattern[..., some[0], :])
    close(operator.columns(torch.tensor(some[1], dtype=torch.long)), pattern[..., some[1]])
    close(operator.tile(slice(1, 7, 2), -1), pattern[..., 1:7:2, -1:])
    close(operator.dense(), pattern)


@SETTINGS
@given(cases())
def test_blocks_are_the_map_in_order(case: Case) -> None:
    blocks = list(case.operator().blocks())
    assert [block.start for block, _ in blocks] == list(range(0, case.sizes[0], 16))
    close(torch.cat([rows for _, rows in blocks], dim=-2), case.pattern())


@settings(max_examples=60, deadline=None, report_multiple_bugs=False)
@given(cases(), st.integers(1, 40))
def test_band_is_the_diagonals(case: Case, width: int) -> None:
    operator = case.operator()
    if operator.offset is None:
        return
    expected = band_of(case.pattern(), width, case.mask.query_origin - case.mask.key_origin)
    close(operator.band(width), expected)
    close(operator.band(1), expected[..., :1])
    close(super(SoftmaxAttention, operator).band(width), expected)


@SETTINGS
@given(cases())
def test_log_normalizer_and_row_mass(case: Case) -> None:
    operator, (pattern, normalizer) = case.operator(), case_pattern(case)
    close(operator.row_mass(), pattern.sum(-1))
    close(operator.log_normalizer(), normalizer)
    close(operator.absolute_mass(), pattern.sum(-1))


@SETTINGS
@given(cases(sinks=False))
def test_entropy_is_that_of_the_rows_and_undefined_without_keys(case: Case) -> None:
    pattern = case.pattern()
    expected = -torch.special.xlogy(pattern, pattern).sum(-1)
    close(case.operator().entropy(), expected.masked_fill(pattern.sum(-1) == 0, torch.nan), 1e-9)


@SETTINGS
@given(cases(), st.floats(0.3, 4.0))
def test_power_sum(case: Case, exponent: float) -> None:
    expected = case.pattern().pow(exponent).sum(-1)
    close(case.operator().power_sum(exponent), expected)
    close(super(SoftmaxAttention, case.operator()).power_sum(exponent), expected)


@SETTINGS
@given(cases())
def test_moments_agree_whether_they_rode_on_a_call_or_not(case: Case) -> None:
    is_first = KeyFunction("is_first", lambda keys: (torch.arange(keys) == 0).double())
    pattern, keys = case.pattern(), case.sizes[1]
    expected = {f.name: moment(pattern, f.values(keys)) for f in (key_position, is_first)}
    alone, ridden = case.operator(), case.operator()
    value = values_for(case, 1, case.key.shape[-3], 7, 3)
    output = ridden.attend(value, riders=[key_position, is_first])
    close(output, pattern @ value.repeat_interleave(case.heads // value.shape[-3], dim=-3))
    for function in (key_position, is_first):
        close(ridden.key_moment(function), expected[function.name])
        close(alone.key_moment(function), expected[function.name])
    close(ridden.log_normalizer(), case.log_normalizer())


@SETTINGS
@given(cases())
def test_valid_queries_are_those_that_see_a_key(case: Case) -> None:
    seen = case.with_options(sinks=None).pattern().sum(-1) > 0
    valid = case.operator().valid_queries
    per_head = isinstance(case.options.get("bias"), DenseBias)  # the one thing that hides by head
    assert valid.shape == (*case.batch, case.heads if per_head else 1, case.sizes[0])
    assert torch.equal(valid.expand_as(seen), seen)


@SETTINGS
@given(cases())
def test_normalized_divides_rows_by_their_sum(case: Case) -> None:
    normalized = case.operator().normalized()
    expected = case.with_options(sinks=None).pattern()
    assert normalized.stochastic
    close(normalized.dense(), expected)
    entropy = -torch.special.xlogy(expected, expected).sum(-1)
    close(normalized.entropy(), entropy.masked_fill(expected.sum(-1) == 0, torch.nan), 1e-9)


@SETTINGS
@given(cases(), st.data())
def test_select_heads_keeps_what_is_known(case: Case, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(-case.heads, case.heads - 1), min_size=1, max_size=4))
    operator, (pattern, normalizer) = case.operator(), case_pattern(case)
    if data.draw(st.booleans()):
        operator.log_normalizer()
    selected = operator.select_heads(chosen)
    close(selected.dense(), pattern[..., chosen, :, :])
    close(selected.log_normalizer(), normalizer[..., chosen, :])
    close(selected.column_mass(), pattern[..., chosen, :, :].sum(-2))
    assert (selected.causal, selected.offset) == (operator.causal, operator.offset)


@SETTINGS
@given(cases(square=True, longest=20), st.floats(-2, 2))
def test_the_algebra_of_softmax_operators(case: Case, factor: float) -> None:
    operator, pattern = case.operator(), case.pattern()
    close(operator.mean_heads().dense(), pattern.mean(-3, keepdim=True))
    close((factor * operator).dense(), factor * pattern)
    close((operator + operator.T).dense(), pattern + pattern.mT)
    values = values_for(case, 1, case.heads, 8, 2)
    close((operator @ operator).apply(values), pattern @ pattern @ values)


@SETTINGS
@given(cases())
def test_what_it_says_of_itself_is_true(case: Case) -> None:
    operator, pattern = case.operator(), case.pattern()
    mass = pattern.sum(-1)
    assert operator.shape == pattern.shape
    assert operator.stochastic == ("sinks" not in case.options)
    if operator.stochastic:
        close(mass[mass > 0], torch.ones_like(mass[mass > 0]))
    if operator.causal:
        offset = case.mask.query_origin - case.mask.key_origin
        assert not pattern.triu(offset + 1).any()


@settings(max_examples=30, deadline=None, report_multiple_bugs=False)
@given(cases(torch.float32))
def test_float32_agrees_to_five_digits(case: Case) -> None:
    _agrees(case, 2e-5)


@settings(max_examples=30, deadline=None, report_multiple_bugs=False)
@given(cases(torch.bfloat16))
def test_bfloat16_agrees_to_two_digits(case: Case) -> None:
    """The factors are exact; outputs are rounded to 8 bits, statistics are computed in float32."""
    _agrees(case, 2e-4, output_tolerance=3e-2)


def _agrees(case: Case, tolerance: float, output_tolerance: float | None = None) -> None:
    operator, (pattern, normalizer) = case.operator(), case_pattern(case)
    assert operator.dtype == torch.float32
    value = values_for(case, 1, case.key.shape[-3], 9, 4)
    expected = pattern @ value.double().repeat_interleave(case.heads // value.shape[-3], dim=-3)
    output = operator.apply(value)
    assert output.dtype == value.dtype
    close(output, expected, output_tolerance or tolerance)
    close(operator.log_normalizer(), normalizer, tolerance)
    close(operator.dense(), pattern, tolerance)
    close(operator.column_mass(), pattern.sum(-2), tolerance * 5)
    close(operator.power_sum(2.0), pattern.square().sum(-1), tolerance)
    for result in (operator.log_normalizer(), operator.dense(), operator.column_mass()):
        assert result.dtype == torch.float32
    if operator.stochastic:
        entropy = -torch.special.xlogy(pattern, pattern).sum(-1)
        close(
            operator.entropy(), entropy.masked_fill(pattern.sum(-1) == 0, torch.nan), tolerance * 5
        )
