"""No hidden maps, real block sizes, and numbers that neither overflow nor cancel."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.attention import AlibiBias, Mask, SoftmaxAttention, key_position
from tests.attention.strategies import normal
from tests.largest_storage import LargestStorage

LENGTH = 2048

KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "causal": dict,
    "all to all": lambda: {"causal": False},
    "window": lambda: {"mask": Mask(after=0, before=255)},
    "chunk": lambda: {"mask": Mask(after=0, chunk=300)},
    "padding": lambda: {"mask": Mask(after=0, key_valid=torch.arange(LENGTH) >= 100)},
    "segments": lambda: {
        "mask": Mask(
            after=0,
            query_segment=torch.arange(LENGTH) // 700,
            key_segment=torch.arange(LENGTH) // 700,
        )
    },
    "softcap": lambda: {"softcap": 5.0},
    "alibi": lambda: {"bias": AlibiBias(torch.tensor([0.1, 0.01]))},
}

STATISTICS: dict[str, Callable[[SoftmaxAttention, Tensor], Tensor]] = {
    "apply": lambda attention, values: attention.apply(values),
    "apply_transpose": lambda attention, values: attention.apply_transpose(values),
    "entropy": lambda attention, values: attention.entropy(),
    "column_mass": lambda attention, values: attention.column_mass(),
    "power_sum": lambda attention, values: attention.power_sum(2.0),
    "band": lambda attention, values: attention.band(51),
    "key_moment": lambda attention, values: attention.key_moment(key_position),
}


@pytest.fixture
def blocks() -> Iterator[None]:
    """Blocks as small beside this length as the real ones are beside a long sequence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnscope.attention.scores._FUSED_BLOCK", 128)
        patch.setattr("attnscope.attention.tile._BLOCK_ELEMENTS", 2**19)
        yield


def long(dim: int = 8, length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(normal(seed, heads, length, dim).float() for seed, heads in enumerate((2, 1, 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("blocks")
def test_no_statistic_builds_a_map(kind: str) -> None:
    query, key, value = long()
    for name, statistic in STATISTICS.items():
        with torch.no_grad(), LargestStorage() as largest:
            statistic(SoftmaxAttention(query, key, **KINDS[kind]()), value)
        assert 0 < largest.elements < LENGTH**2 // 4, name


@pytest.mark.parametrize("kind", ["causal", "window", "softcap"])
@pytest.mark.usefixtures("blocks")
def test_no_gradient_builds_a_map(kind: str) -> None:
    query, key, value = (part.requires_grad_() for part in long())
    with LargestStorage() as largest:
        attention = SoftmaxAttention(query, key, **KINDS[kind]())
        (attention.apply(value).sum() + attention.log_normalizer().sum()).backward()
    assert 0 < largest.elements < LENGTH**2 // 4


@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences_cross_real_blocks_unharmed(kind: str) -> None:
    query, key, value = long()
    attention = SoftmaxAttention(query, key, **KINDS[kind]())
    rows = [0, 99, 100, 255, 256, 511, 512, 1023, 1024, 1399, 1400, 2047]
    tile = SoftmaxAttention(query, key, **KINDS[kind]()).rows(rows)  # by its own, fresh normalizer
    torch.testing.assert_close(attention.apply(value)[:, rows], tile @ value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        attention.power_sum(2.0)[:, rows], tile.square().sum(-1), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(attention.row_mass()[:, rows], tile.sum(-1), rtol=1e-5, atol=1e-5)
    band = attention.band(51)
    for row in (99, 511, 512, 2047):
        here = tile[:, rows.index(row), max(0, row - 50) : row + 1].flip(-1)
        torch.testing.assert_close(band[:, row, : here.shape[-1]], here, rtol=1e-4, atol=1e-6)
    entropy = attention.entropy()[:, rows].nan_to_num()
    torch.testing.assert_close(
        entropy, -torch.special.xlogy(tile, tile).sum(-1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["causal", "all to all", "window", "softcap"])
def test_large_scores_neither_overflow_nor_lose_mass(kind: str) -> None:
    query, key, value = long(dim=64, length=200)
    options = KINDS[kind]() | ({"softcap": 3000.0} if kind == "softcap" else {})
    attention = SoftmaxAttention(query, key, 30.0, **options)
    precise = SoftmaxAttention(query.double(), key.double(), 30.0, **options)
    assert precise.log_normalizer().max() > 200  # exp of it is infinite in float32
    for name in STATISTICS:
        ours, expected = (
            STATISTICS[name](one, value.to(one.dtype)) for one in (attention, precise)
        )
        assert ours.isfinite().all(), name
        torch.testing.assert_close(
            ours.double(), expected, rtol=1e-2, atol=1e-2, msg=lambda text, at=name: f"{at}: {text}"
        )
    torch.testing.assert_close(attention.dense().sum(-1), torch.ones(2, 200), rtol=1e-3, atol=1e-3)


def test_a_normalizer_from_a_sixteen_bit_call_fits_tiles_in_thirty_two() -> None:
    query, key, value = (part.bfloat16() for part in long(dim=64, length=300))
    attention = SoftmaxAttention(query, key)
    attention.attend(value)
    torch.testing.assert_close(attention.dense().sum(-1), torch.ones(2, 300), rtol=2e-3, atol=2e-3)
    fresh = SoftmaxAttention(query, key)
    torch.testing.assert_close(
        attention.log_normalizer(), fresh.log_normalizer(), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(attention.column_mass(), fresh.column_mass(), rtol=1e-3, atol=1e-2)


def test_a_moment_that_rode_in_sixteen_bits_is_rounded_once() -> None:
    query, key, value = (part.bfloat16() for part in long(dim=16, length=600))
    ridden, fresh = SoftmaxAttention(query, key), SoftmaxAttention(query, key)
    ridden.attend(value, riders=[key_position])
    expected = fresh.key_moment(key_position)
    torch.testing.assert_close(ridden.key_moment(key_position), expected, rtol=2**-7, atol=1e-2)


def test_a_position_read_alone_in_sixteen_bits_is_exact() -> None:
    query, key, value = (part.bfloat16() for part in long(dim=16, length=600))
    alone = SoftmaxAttention(query, key, mask=Mask(before=0, after=0))
    alone.attend(value, riders=[key_position])
    expected = torch.arange(600.0).expand(2, -1)
    torch.testing.assert_close(alone.key_moment(key_position), expected, rtol=0, atol=0.01)
