"""`DeltaRuleAttention` against its recurrence run position by position."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.attention import DeltaRuleAttention, OperatorError, ScanAttention
from tests.attention.agreement import assert_agrees
from tests.attention.strategies import normal


def factors(
    seed: int, *batch: int, groups: int, heads: int, length: int, dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return queries, normalized keys, beta in (0, 1) and log decays."""
    shape = (*batch, groups, length, dim)
    key = torch.nn.functional.normalize(normal(seed + 1, *shape), dim=-1)
    beta, log_decay = (normal(seed + n, *batch, heads, length) for n in (2, 3))
    return normal(seed, *shape), key, beta.sigmoid(), torch.nn.functional.logsigmoid(log_decay)


def slow_map(query: Tensor, key: Tensor, beta: Tensor, log_decay: Tensor) -> Tensor:
    """Return the map whose column j is what a value of 1 at j leaves in the outputs."""
    heads, length = beta.shape[-2:]
    query, key = (f.repeat_interleave(heads // f.shape[-3], dim=-3) for f in (query, key))
    identity = torch.eye(query.shape[-1], dtype=query.dtype)
    state = query.new_zeros(*query.shape[:-2], query.shape[-1], length)
    rows = []
    for t in range(length):
        k, q, b = key[..., t, :, None], query[..., t, None, :], beta[..., t, None, None]
        written = torch.eye(length, dtype=query.dtype)[t]
        transition = log_decay[..., t, None, None].exp() * (identity - b * (k @ k.mT))
        state = transition @ state + b * k * written
        rows.append(q @ state)
    return torch.cat(rows, dim=-2)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(), (2,)]),
    st.sampled_from([(1, 2), (2, 2), (2, 4)]),
    st.integers(2, 18),
)
def test_every_method_is_that_of_the_recurrence(seed, batch, groups_and_heads, length) -> None:
    groups, heads = groups_and_heads
    own = factors(seed, *batch, groups=groups, heads=heads, length=length, dim=3)
    pattern = slow_map(*own)
    attention = DeltaRuleAttention(*own)
    if bool((pattern < 0).any()):
        assert_agrees(attention, pattern)
    torch.testing.assert_close(attention.dense(), pattern)
    assert (attention.stochastic, attention.causal, attention.signed) == (False, True, True)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.integers(60, 150))
def test_chunks_do_not_show(seed, length) -> None:
    own = factors(seed, groups=1, heads=2, length=length, dim=4)
    attention, pattern = DeltaRuleAttention(*own), slow_map(*own)
    values = normal(seed + 5, 2, length, 3)
    torch.testing.assert_close(attention.apply(values), pattern @ values)
    torch.testing.assert_close(attention.apply_transpose(values), pattern.mT @ values)
    for rows, columns in [([length - 1, 0, 40], range(3, length, 7)), (range(30, 60), [31, 2])]:
        expected = pattern[:, list(rows)][:, :, list(columns)]
        torch.testing.assert_close(attention.tile(rows, columns), expected)
    assert not attention.tile([3, 5], [9, 40]).any()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 80))
def test_transposition_moves_across_the_inner_product(seed, length) -> None:
    attention = DeltaRuleAttention(*factors(seed, groups=2, heads=4, length=length, dim=4))
    values, weights = normal(seed + 5, 4, length, 2), normal(seed + 6, 4, length, 2)
    left = (attention.apply(values) * weights).sum()
    torch.testing.assert_close(left, (values * attention.apply_transpose(weights)).sum())


def test_keys_at_right_angles_forget_nothing_of_each_other() -> None:
    """Then nothing is rewritten, and the rule is linear attention that fades."""
    query, _, beta, log_decay = factors(0, groups=1, heads=2, length=4, dim=4)
    key = torch.eye(4).double()[None]
    fading = ScanAttention(query, key, -log_decay, -torch.ones(2, 1).double())
    shares = beta / -log_decay  # a scan writes as far as it steps
    expected = fading.dense() * shares.unsqueeze(-2)
    torch.testing.assert_close(DeltaRuleAttention(query, key, beta, log_decay).dense(), expected)


def test_beta_of_one_overwrites_what_the_same_key_held() -> None:
    ones = torch.ones(1, 5, 1).double()
    attention = DeltaRuleAttention(ones, ones, ones[..., 0], torch.zeros(1, 5).double())
    assert attention.dense().tolist() == [torch.eye(5).tolist()]


def test_what_needs_shares_is_refused() -> None:
    attention = DeltaRuleAttention(*factors(0, groups=1, heads=2, length=5, dim=2))
    for ask in (attention.entropy, attention.normalized, lambda: attention.power_sum(2.0)):
        with pytest.raises(OperatorError):
            ask()


def test_gradients_are_those_of_finite_differences() -> None:
    own = factors(0, groups=1, heads=2, length=4, dim=2)
    inputs = [part.requires_grad_() for part in (*own, normal(5, 2, 4, 1))]

    def read(query, key, beta, log_decay, values):
        attention = DeltaRuleAttention(query, key, beta, log_decay)
        return attention.apply(values), attention.apply_transpose(values), attention.tile([3], [1])

    assert torch.autograd.gradcheck(read, inputs)


def test_stored_parts_build_it_again_and_an_item_is_one_of_the_batch() -> None:
    own = factors(0, 2, groups=2, heads=4, length=5, dim=2)
    attention = DeltaRuleAttention(own[0].requires_grad_(), *own[1:])
    item = attention.item(1)
    torch.testing.assert_close(item.dense(), attention.dense()[1])
    assert not item.query.requires_grad
    again = DeltaRuleAttention.from_parts(*item.parts())
    torch.testing.assert_close(again.dense(), item.dense())
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


def test_a_long_sequence_never_has_a_map() -> None:
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            sizes.extend(r.numel() for r in [result] if isinstance(r, Tensor))
            return result

    length = 12_000
    ones = torch.ones(1, length, 1)
    attention = DeltaRuleAttention(ones, ones, ones[..., 0] / 2, torch.zeros(1, length))
    with pytest.raises(OperatorError, match="over the limit"):
        attention.dense()
    with Watch():
        read = attention.apply(ones)
        received = attention.apply_transpose(ones)
        tile = attention.tile([11_000, 11_002], [11_000])
        band = attention.band(2)
    assert max(sizes) <= length * 64
    # Half of what the one key holds is replaced each time: rows are 1/2, 1/4, 1/8, ...
    assert read[0, -1, 0].item() == pytest.approx(1.0)
    assert received[0, 0, 0].item() == pytest.approx(1.0)
    assert tile.flatten().tolist() == pytest.approx([0.5, 0.125])
    assert band[0, -1].tolist() == pytest.approx([0.5, 0.25])


def test_factors_that_do_not_fit_are_refused() -> None:
    build = DeltaRuleAttention.__init__.__wrapped__  # past the shape check of the tests
    good = [torch.ones(1, 4, 2), torch.ones(1, 4, 2), torch.ones(2, 4), torch.ones(2, 4)]
    for place, wrong in [(0, (1, 5, 2)), (1, (1, 4, 3)), (2, (2, 5)), (3, (1, 4))]:
        given = [*good[:place], torch.ones(wrong), *good[place + 1 :]]
        with pytest.raises(OperatorError, match="do not fit; they need"):
            build(object.__new__(DeltaRuleAttention), *given)
    with pytest.raises(OperatorError, match="the same positions"):
        DeltaRuleAttention(*good, key_axis="patch")
