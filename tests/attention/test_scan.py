"""`ScanAttention` against the recurrence run position by position, and against its closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.attention import (
    ConvolutionAttention,
    GateAttention,
    KernelAttention,
    OperatorError,
    ScanAttention,
    scan_block,
)
from attnscope.attention.scan_product import scan_product
from tests.attention.agreement import assert_agrees
from tests.attention.strategies import normal


def factors(
    seed: int, *batch: int, groups: int, heads: int, length: int, state: int, rates: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return queries, keys, positive steps and negative rates."""
    shape = (*batch, groups, length, state)
    delta = torch.nn.functional.softplus(normal(seed + 2, *batch, heads, length))
    return (
        normal(seed, *shape),
        normal(seed + 1, *shape),
        delta,
        -normal(seed + 3, heads, rates).exp(),
    )


def slow_map(query: Tensor, key: Tensor, delta: Tensor, decay: Tensor) -> Tensor:
    """Return the map column by column: one value of 1 sent through the states by Euler's rule."""
    heads, length = delta.shape[-2:]
    query, key = (f.repeat_interleave(heads // f.shape[-3], dim=-3) for f in (query, key))
    pattern = torch.zeros(*delta.shape, length, dtype=delta.dtype)
    for source in range(length):
        state = torch.zeros_like(query[..., 0, :])
        for t in range(length):
            faded = torch.exp(delta[..., t, None] * decay) * state
            state = faded + delta[..., t, None] * key[..., t, :] * float(t == source)
            pattern[..., t, source] = (query[..., t, :] * state).sum(-1)
    return pattern


def closed_form(query: Tensor, key: Tensor, delta: Tensor, decay: Tensor) -> Tensor:
    """Return the map entry by entry, from sums of the steps."""
    heads, length = delta.shape[-2:]
    query, key = (f.repeat_interleave(heads // f.shape[-3], dim=-3) for f in (query, key))
    sums = delta.cumsum(-1)
    pattern = torch.zeros(*delta.shape, length, dtype=delta.dtype)
    for i in range(length):
        for j in range(i + 1):
            left = torch.exp(decay * (sums[..., i] - sums[..., j]).unsqueeze(-1))
            products = query[..., i, :] * key[..., j, :] * left
            pattern[..., i, j] = delta[..., j] * products.sum(-1)
    return pattern


SHAPES = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([1, 2]),
        "heads": st.sampled_from([2, 4]),
        "length": st.integers(1, 18),
        "state": st.just(3),
        "rates": st.sampled_from([1, 3]),
    }
)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(), (2,)]), SHAPES, st.booleans())
def test_every_method_is_that_of_the_recurrence(seed, batch, sizes, skips) -> None:
    own = factors(seed, *batch, **sizes)
    pattern = slow_map(*own)
    skip = normal(seed + 4, sizes["heads"]) if skips else None
    if skip is not None:
        pattern = pattern + torch.diag_embed(skip[:, None].expand(-1, sizes["length"]))
    attention = ScanAttention(*own, skip=skip, signed=bool((pattern < 0).any()))
    assert_agrees(attention, pattern)
    assert (attention.stochastic, attention.causal, attention.offset) == (False, True, 0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 4]), st.integers(60, 150))
def test_chunks_do_not_show(seed, rates, length) -> None:
    own = factors(seed, groups=1, heads=2, length=length, state=4, rates=rates)
    attention = ScanAttention(*own)
    values, pattern = normal(seed + 5, 2, length, 3), attention.dense()
    torch.testing.assert_close(attention.apply(values), pattern @ values)
    torch.testing.assert_close(attention.apply_transpose(values), pattern.mT @ values)
    rows, columns = [length - 1, 0, 40], range(3, length, 7)
    tile = attention.tile(rows, columns)
    torch.testing.assert_close(tile, pattern[:, rows][:, :, list(columns)])
    assert not pattern.triu(1).any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 4]), st.integers(1, 80))
def test_transposition_moves_across_the_inner_product(seed, rates, length) -> None:
    own = factors(seed, groups=2, heads=4, length=length, state=4, rates=rates)
    attention = ScanAttention(*own, skip=normal(seed + 7, 4))
    values, weights = normal(seed + 5, 4, length, 2), normal(seed + 6, 4, length, 2)
    left = (attention.apply(values) * weights).sum()
    torch.testing.assert_close(left, (values * attention.apply_transpose(weights)).sum())


@pytest.mark.parametrize("rates", [1, 3])
def test_the_closed_form_is_the_recurrence_to_the_last_digits(rates) -> None:
    own = factors(0, groups=1, heads=2, length=24, state=3, rates=rates)
    slow, attention = slow_map(*own), ScanAttention(*own)
    size = slow.abs().max()
    for found in (
        closed_form(*own),
        attention.dense(),
        attention.apply(torch.eye(24).double()[None]),
    ):
        assert float((found - slow).abs().max() / size) < 2e-15


def test_euler_hand_case_of_three_positions() -> None:
    """A = -1, N = 1, every step ln 2: the state halves; B is ln 2 by Euler's rule, not 1/2."""
    ones, step = torch.ones(1, 3, 1).double(), math.log(2)
    delta = torch.full((1, 3), step).double()
    attention = ScanAttention(ones, ones, delta, -torch.ones(1, 1).double())
    result = attention.apply(torch.tensor([[[1.0], [2.0], [7.25]]]).double()).flatten() / step
    assert result.tolist() == pytest.approx([1.0, 2.5, 8.5])
    rows = (attention.dense()[0] / step).flatten().tolist()
    assert rows == pytest.approx([1, 0, 0, 0.5, 1, 0, 0.25, 0.5, 1])


def test_a_constant_step_makes_a_convolution_and_no_step_lets_the_state_pass() -> None:
    query, key = normal(0, 1, 1, 3).expand(-1, 9, -1), normal(1, 1, 1, 3).expand(-1, 9, -1)
    decay = -normal(2, 1, 3).exp()
    even = ScanAttention(query, key, torch.full((1, 9), 0.3).double(), decay).dense()[0]
    torch.testing.assert_close(even[1:, 1:], even[:-1, :-1])
    delta = torch.rand(1, 9).double()
    delta[0, 4] = 0
    still = ScanAttention(query, key, delta, decay).dense()[0]
    assert not still[:, 4].any()
    torch.testing.assert_close(still[4, :4], still[3, :4])


def test_what_does_not_fade_is_linear_attention() -> None:
    query, key = normal(0, 2, 70, 3).exp(), normal(1, 2, 70, 3).exp()
    ones, none = torch.ones(2, 70).double(), torch.zeros(2, 1).double()
    attention = ScanAttention(query, key, ones, none)
    plain = KernelAttention(query, key, causal=True, normalize=False)
    torch.testing.assert_close(attention.dense(), plain.dense())
    assert not attention.signed
    torch.testing.assert_close(attention.power_sum(2.0), plain.power_sum(2.0))
    with pytest.raises(OperatorError, match="rows that are distributions"):
        attention.entropy()
    torch.testing.assert_close(attention.normalized().row_mass(), ones)


def test_signed_scans_refuse_what_needs_shares() -> None:
    attention = ScanAttention(*factors(0, groups=1, heads=2, length=5, state=2, rates=2))
    assert attention.signed
    for ask in (attention.entropy, attention.normalized, lambda: attention.power_sum(2.0)):
        with pytest.raises(OperatorError):
            ask()


def test_the_skip_is_a_diagonal_that_can_be_left_out() -> None:
    own = factors(0, groups=1, heads=2, length=6, state=2, rates=2)
    skip = normal(4, 2)
    whole, hidden = ScanAttention(*own, skip=skip), ScanAttention(*own)
    diagonal = GateAttention(skip[:, None].expand(-1, 6))
    torch.testing.assert_close(whole.dense(), (hidden + diagonal).dense())
    torch.testing.assert_close(whole.without_skip().dense(), hidden.dense())


@pytest.mark.parametrize("rates", [1, 2])
def test_gradients_are_those_of_finite_differences(rates) -> None:
    own = factors(0, groups=1, heads=2, length=5, state=2, rates=rates)
    inputs = [part.requires_grad_() for part in (*own, normal(5, 2, 5, 1), normal(6, 2))]

    def read(query, key, delta, decay, values, skip):
        attention = ScanAttention(query, key, delta, decay, skip=skip)
        return attention.apply(values), attention.apply_transpose(values), attention.tile([4], [1])

    assert torch.autograd.gradcheck(read, inputs)


def test_stored_parts_build_it_again_and_an_item_is_one_of_the_batch() -> None:
    own = factors(0, 2, groups=2, heads=4, length=5, state=2, rates=2)
    attention = ScanAttention(own[0].requires_grad_(), *own[1:], skip=normal(5, 4))
    item = attention.item(1)
    torch.testing.assert_close(item.dense(), attention.dense()[1])
    assert not item.query.requires_grad
    again = ScanAttention.from_parts(*item.parts())
    torch.testing.assert_close(again.dense(), item.dense())
    assert again.signed
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


def test_sixteen_bit_factors_are_scanned_in_thirty_two() -> None:
    own = [part.bfloat16() for part in factors(0, groups=1, heads=2, length=70, state=4, rates=4)]
    attention, exact = ScanAttention(*own), ScanAttention(*(part.double() for part in own))
    values = normal(5, 2, 70, 1, dtype=torch.bfloat16)
    assert attention.dtype == attention.apply(values).dtype == torch.float32
    torch.testing.assert_close(
        attention.apply(values), exact.apply(values).float(), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("rates", [1, 4])
def test_a_long_sequence_never_has_a_map(rates) -> None:
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            sizes.extend(r.numel() for r in [result] if isinstance(r, Tensor))
            return result

    length = 12_000  # over the limit of a map
    ones = torch.ones(1, length, 4)
    attention = ScanAttention(ones, ones / 4, torch.ones(1, length), torch.full((1, rates), -0.5))
    with pytest.raises(OperatorError, match="over the limit"):
        attention.dense()
    with Watch():
        read = attention.apply(torch.ones(1, length, 1))
        received = attention.apply_transpose(torch.ones(1, length, 1))
        band = attention.band(3)
    assert max(sizes) <= length * 64
    total = 1 / (1 - math.exp(-0.5))
    assert read[0, -1, 0].item() == pytest.approx(total, rel=1e-5)
    assert received[0, 0, 0].item() == pytest.approx(total, rel=1e-5)
    assert band[0, -1].tolist() == pytest.approx([1, math.exp(-0.5), math.exp(-1)], rel=1e-5)


def test_thousands_of_channels_are_passed_some_at_a_time(monkeypatch) -> None:
    own = factors(0, groups=2, heads=6, length=20, state=2, rates=2)
    attention = ScanAttention(*own)
    expected = attention.absolute_mass()
    monkeypatch.setattr("attnscope.attention.scan._ROWS_AT_ONCE", 16 * 20 * 2)
    torch.testing.assert_close(attention.absolute_mass(), expected)
    torch.testing.assert_close(expected, slow_map(*own).abs().sum(-1))


def test_a_late_position_is_as_exact_as_an_early_one() -> None:
    """Sums of 20,000 steps are large numbers in 32 bits; entries hang on their differences."""
    ones = torch.ones(1, 20_000, 1)
    delta = 1 + torch.rand(1, 20_000, generator=torch.Generator().manual_seed(0))
    attention = ScanAttention(ones, ones, delta, torch.full((1, 1), -1.0))
    late = attention.tile([19_999], [19_998])
    torch.testing.assert_close(late[0, 0, 0], delta[0, -2] * torch.exp(-delta[0, -1]))


def test_a_scan_over_no_chunk_at_all_is_the_running_sum() -> None:
    ones = torch.ones(1, 130, 1)
    still = torch.zeros(1, 1)
    counted = scan_product(ones, ones, ones[..., 0], still, ones).flatten()
    assert torch.equal(counted, torch.arange(1.0, 131))


def test_factors_that_do_not_fit_are_refused() -> None:
    build = ScanAttention.__init__.__wrapped__  # past the shape check of the tests
    good = [torch.ones(1, 4, 2), torch.ones(1, 4, 2), torch.ones(2, 4), torch.ones(2, 2)]
    for place, wrong in [(0, (1, 5, 2)), (1, (1, 4, 3)), (2, (2, 5)), (3, (2, 3)), (3, (1, 2))]:
        given = [*good[:place], torch.ones(wrong), *good[place + 1 :]]
        with pytest.raises(OperatorError, match="do not fit; they need"):
            build(object.__new__(ScanAttention), *given)
    with pytest.raises(OperatorError, match="the same positions"):
        ScanAttention(*good, key_axis="patch")


def test_a_block_is_a_product_of_gates_the_scan_and_a_convolution() -> None:
    """Fact: T x + t0 is the gated output, with a convolution's bias sent through on its own."""
    own = factors(0, groups=1, heads=3, length=8, state=2, rates=2)
    scan = ScanAttention(*own, skip=normal(4, 3))
    x, gate, kernel, bias = normal(5, 3, 8, 1), normal(6, 3, 8), normal(7, 3, 4), normal(8, 3, 1, 1)
    before = ConvolutionAttention(kernel, [8], causal=True).apply(x) + bias
    expected = torch.nn.functional.silu(gate)[..., None] * scan.apply(
        torch.nn.functional.silu(before)
    )
    block = scan_block(scan, gate, before.squeeze(-1), kernel)
    constant = scan_block(
        scan, gate, before.squeeze(-1), torch.eye(1, 4).flip(-1).double().expand(3, -1)
    )
    shift = constant.apply(bias.expand(-1, 8, -1))
    torch.testing.assert_close(block.apply(x) + shift, expected)
    assert not block.dense().triu(1).any()
