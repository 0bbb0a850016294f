"""`GroupedAttention` against the product of its factors' matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import DenseAttention, GroupedAttention, OperatorError, SoftmaxAttention
from tests.attention.agreement import assert_agrees
from tests.attention.strategies import normal

QUERIES, GROUPS, KEYS = 11, 4, 9


def rows_of(seed: int, *shape: int) -> Tensor:
    return normal(seed, *shape).softmax(-1)


def partition(seed: int, *batch: int, groups: int = GROUPS, keys: int = KEYS) -> Tensor:
    """Return rows that sum to 1 and share no key: key `j` belongs to group `j mod groups`."""
    owns = torch.arange(keys) % groups == torch.arange(groups)[:, None]
    return normal(seed, *batch, groups, keys).masked_fill(~owns, -torch.inf).softmax(-1)


def factors(
    batch: tuple[int, ...], heads: tuple[int, int, int], mixed: bool, shared_keys: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    read = rows_of(0, *batch, heads[0], QUERIES, GROUPS)
    mix = rows_of(1, *batch, heads[1], GROUPS, GROUPS) if mixed else None
    make = rows_of if shared_keys else partition
    shape = (GROUPS, KEYS) if shared_keys else ()
    return read, mix, make(2, *batch, heads[2], *shape)


def grouped(read: Tensor, mix: Tensor | None, spread: Tensor) -> GroupedAttention:
    return GroupedAttention(
        DenseAttention(read, query_axis="patch", key_axis="group"),
        DenseAttention(spread, query_axis="group", key_axis="patch"),
        None if mix is None else DenseAttention(mix, query_axis="group", key_axis="group"),
        offset=1,
    )


def product(read: Tensor, mix: Tensor | None, spread: Tensor) -> Tensor:
    """Multiply entry by entry, with loops."""
    heads = max(part.shape[-3] for part in (read, spread, mix) if part is not None)
    read, spread = (part.expand(*part.shape[:-3], heads, -1, -1) for part in (read, spread))
    mix = torch.eye(GROUPS, dtype=read.dtype) if mix is None else mix
    mix = mix.expand(*read.shape[:-2], GROUPS, GROUPS)
    total = torch.zeros(*read.shape[:-1], KEYS, dtype=read.dtype)
    for group in range(GROUPS):
        for other in range(GROUPS):
            through = read[..., group] * mix[..., group, other, None]
            total += through[..., None] * spread[..., None, other, :]
    return total


HEADS = [(1, 1, 1), (3, 3, 3), (1, 3, 1), (3, 1, 1), (1, 1, 3)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(), (2,), (2, 1)]), st.sampled_from(HEADS), st.booleans(), st.booleans())
def test_every_method_is_that_of_the_product(
    batch: tuple[int, ...], heads: tuple[int, int, int], mixed: bool, shared_keys: bool
) -> None:
    parts = factors(batch, heads, mixed, shared_keys)
    attention = grouped(*parts)
    assert_agrees(attention, product(*parts))
    assert attention.is_partition is not shared_keys
    assert (attention.query_axis, attention.key_axis) == ("patch", "patch")
    entropy = DenseAttention(product(*parts)).entropy()
    torch.testing.assert_close(attention.entropy(), entropy)


@pytest.mark.parametrize("mixed", [True, False])
def test_it_comes_back_from_its_parts_and_its_batch(mixed: bool) -> None:
    parts = factors((2,), (1, 3, 1) if mixed else (3, 3, 1), mixed, shared_keys=False)
    item = grouped(*parts).item(1)
    back = GroupedAttention.from_parts(*item.parts())
    torch.testing.assert_close(back.dense(), product(*parts)[1])
    assert (back.offset, back.stochastic, back.shape) == (1, True, (3, QUERIES, KEYS))
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


def test_a_tile_is_found_by_rows_by_columns_or_by_groups() -> None:
    parts = factors((), (2, 2, 2), True, shared_keys=True)
    attention, matrix = grouped(*parts), product(*parts)
    for rows, columns in [([3], slice(None)), (slice(None), [3]), ([1, 2, 3], [4, 5, 6])]:
        torch.testing.assert_close(attention.tile(rows, columns), matrix[:, rows][:, :, columns])


def test_entropy_and_power_sums_of_a_partition_ask_for_no_row_of_the_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = factors((), (2, 2, 1), True, shared_keys=False)
    attention, dense = grouped(*parts), DenseAttention(product(*parts))
    monkeypatch.setattr(GroupedAttention, "tile", None)
    torch.testing.assert_close(attention.entropy(), dense.entropy())
    torch.testing.assert_close(attention.power_sum(3.0), dense.power_sum(3.0))


def test_a_leak_is_told_and_can_be_divided_away() -> None:
    read, mix, spread = factors((), (2, 2, 2), True, shared_keys=False)
    leaking = grouped(read * 0.5, mix, spread)
    assert not leaking.stochastic
    with pytest.raises(OperatorError, match="entropy needs rows that are distributions"):
        leaking.entropy()
    again = leaking.normalized()
    assert isinstance(again, GroupedAttention)
    torch.testing.assert_close(again.dense(), product(read, mix, spread))
    torch.testing.assert_close(again.entropy(), DenseAttention(again.dense()).entropy())
    inside = grouped(read, mix, spread * 0.5).normalized()
    torch.testing.assert_close(inside.dense(), product(read, mix, spread))


def test_a_group_without_keys_loses_what_is_read_of_it() -> None:
    read, _, spread = factors((), (1, 1, 1), False, shared_keys=False)
    spread[:, 0] = 0
    attention = grouped(read, None, spread)
    assert not attention.stochastic
    torch.testing.assert_close(attention.row_mass(), 1 - read[..., 0])


def test_a_query_that_reads_nothing_has_no_entropy() -> None:
    read, mix, spread = factors((), (1, 1, 1), True, shared_keys=False)
    read[:, 0] = 0
    attention = grouped(read, mix, spread)
    assert attention.valid_queries[0].tolist() == [False] + [True] * (QUERIES - 1)
    assert attention.entropy().isnan().nonzero().tolist() == [[0, 0]]
    assert attention.power_sum(2.0)[0, 0] == 0


def test_long_maps_are_never_whole() -> None:
    length = 20_000
    query, key = normal(0, 1, length, 2), normal(1, 1, 8, 2)
    owner = torch.arange(length) * 8 // length == torch.arange(8)[:, None]
    attention = GroupedAttention(
        SoftmaxAttention(query, key, causal=False, query_axis="patch", key_axis="group"),
        DenseAttention(owner[None] / owner.sum(-1, keepdim=True).double(), key_axis="patch"),
    )
    with pytest.raises(OperatorError, match="over the limit"):
        attention.dense()
    torch.testing.assert_close(
        attention.entropy(), attention.read.entropy() + torch.tensor(length / 8).double().log()
    )
    torch.testing.assert_close(attention.row_mass(), torch.ones(1, length).double())
    assert attention.band(2).shape == (1, length, 2)


def test_gradients_flow_through_every_factor() -> None:
    def read_through(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        return GroupedAttention(
            SoftmaxAttention(query, key, causal=False),
            DenseAttention(partition(3, 1, 1)),
            SoftmaxAttention(key, key, causal=False),
        ).apply(values)

    inputs = normal(0, 1, 2, 3, 2), normal(1, 1, 2, GROUPS, 2), normal(2, 1, 2, KEYS, 2)
    assert torch.autograd.gradcheck(read_through, [part.requires_grad_() for part in inputs])


def test_sixteen_bit_factors_answer_in_thirty_two() -> None:
    query, key = normal(0, 2, 6, 4).bfloat16(), normal(1, 2, GROUPS, 4).bfloat16()
    attention = GroupedAttention(
        SoftmaxAttention(query, key, causal=False), DenseAttention(partition(3, 1).float())
    )
    assert attention.dtype == torch.float32
    for answer in (attention.dense(), attention.entropy(), attention.row_mass()):
        assert answer.dtype == torch.float32


def test_signed_factors_make_it_signed() -> None:
    read, mix, spread = factors((), (1, 1, 1), True, shared_keys=False)
    attention = grouped(-read, mix, spread)
    assert attention.signed
    with pytest.raises(OperatorError, match="not negative"):
        attention.power_sum(2.0)


@pytest.mark.parametrize(
    ("read", "mix", "spread"),
    [((1, 5, 3), None, (1, 4, 7)), ((1, 5, 3), (1, 3, 4), (1, 3, 7)), ((2, 5, 3), None, (3, 3, 7))],
)
def test_factors_that_do_not_fit_are_refused(read, mix, spread) -> None:
    with pytest.raises(OperatorError, match=r"do not fit; they need one batch"):
        GroupedAttention(
            DenseAttention(torch.rand(read)),
            DenseAttention(torch.rand(spread)),
            None if mix is None else DenseAttention(torch.rand(mix)),
        )
