"""Masks as rules against masks entry by entry."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import Mask, OperatorError
from tests.attention.oracle import mask_array
from tests.attention.strategies import masks

SETTINGS = settings(max_examples=80, deadline=None)


@st.composite
def sized_masks(draw: Any) -> tuple[Mask, tuple[int, ...], int, int]:
    batch = draw(st.sampled_from([(), (2,), (2, 3)]))
    queries, keys = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    return draw(masks(batch, queries, keys)), batch, queries, keys


def whole(mask: Mask, queries: int, keys: int) -> Tensor:
    return mask.tile(torch.arange(queries), torch.arange(keys))


@SETTINGS
@given(sized_masks())
def test_a_tile_follows_the_rules_entry_by_entry(sized: tuple) -> None:
    mask, batch, queries, keys = sized
    expected = mask_array(mask, batch, queries, keys)
    assert torch.equal(whole(mask, queries, keys).expand_as(expected), expected)


@SETTINGS
@given(sized_masks())
def test_transposing_exchanges_the_axes_and_twice_is_nothing(sized: tuple) -> None:
    mask, _, queries, keys = sized
    tile = whole(mask, queries, keys)
    assert torch.equal(whole(mask.transpose(), keys, queries), tile.mT)
    assert torch.equal(whole(mask.transpose().transpose(), queries, keys), tile)
    assert mask.transpose().offset == -mask.offset


@SETTINGS
@given(sized_masks(), st.data())
def test_the_key_span_leaves_no_visible_key_out(sized: tuple, data: st.DataObject) -> None:
    mask, _, queries, keys = sized
    start = data.draw(st.integers(0, queries - 1))
    stop = data.draw(st.integers(start + 1, queries))
    low, high = mask.key_span(start, stop, keys=keys)
    assert 0 <= low <= high <= keys
    block = whole(mask, queries, keys)[..., start:stop, :]
    assert not block[..., :low].any()
    assert not block[..., high:].any()


@pytest.mark.parametrize(
    ("mask", "span"),
    [
        (Mask(after=0), (0, 12)),
        (Mask(after=0, before=3), (5, 12)),
        (Mask(before=2, after=2), (6, 14)),
        (Mask(chunk=4), (8, 12)),
        (Mask(after=0, query_origin=5), (0, 17)),
        (Mask(before=0, after=0, key_origin=3), (5, 9)),
        (Mask(after=-20), (0, 0)),
        (Mask(before=0, query_origin=40), (20, 20)),
        (Mask(query_segment=torch.arange(20) // 8, key_segment=torch.arange(20) // 8), (8, 16)),
    ],
)
def test_the_key_span_is_tight(mask: Mask, span: tuple[int, int]) -> None:
    assert mask.key_span(8, 12, keys=20) == span


@SETTINGS
@given(sized_masks(), st.data())
def test_a_mask_claims_nothing_that_is_not_so(sized: tuple, data: st.DataObject) -> None:
    mask, _, queries, keys = sized
    tile = whole(mask, queries, keys)
    rows = slice(
        *sorted(data.draw(st.lists(st.integers(0, queries), min_size=2, max_size=2, unique=True)))
    )
    columns = slice(
        *sorted(data.draw(st.lists(st.integers(0, keys), min_size=2, max_size=2, unique=True)))
    )
    if mask.leaves_open(rows, columns):
        assert tile[..., rows, columns].all()
    if mask.hides_nothing:
        assert tile.all()
    if mask.is_plain_causal:
        assert torch.equal(tile, torch.ones(queries, keys, dtype=torch.bool).tril())
    if mask.is_causal:
        assert not tile.triu(mask.offset + 1).any()


@pytest.mark.parametrize(
    ("mask", "rows", "columns", "is_open"),
    [
        (Mask(), slice(0, 4), slice(0, 9), True),
        (Mask(after=0), slice(4, 8), slice(0, 5), True),
        (Mask(after=0), slice(4, 8), slice(0, 6), False),
        (Mask(after=0, before=5), slice(4, 6), slice(0, 5), True),
        (Mask(after=0, before=4), slice(4, 6), slice(0, 5), False),
        (Mask(after=0, query_origin=3), slice(0, 2), slice(0, 4), True),
    ],
)
def test_an_open_tile_is_known_as_one(
    mask: Mask, rows: slice, columns: slice, is_open: bool
) -> None:
    assert mask.leaves_open(rows, columns) is is_open


@SETTINGS
@given(sized_masks())
def test_parts_build_the_same_mask_again(sized: tuple) -> None:
    mask, _, queries, keys = sized
    tensors, facts = mask.parts()
    assert all(value is None or isinstance(value, int) for value in facts.values())
    again = Mask.from_parts(tensors, facts)
    assert torch.equal(whole(again, queries, keys), whole(mask, queries, keys))
    moved = mask.to(torch.device("cpu"))
    assert torch.equal(whole(moved, queries, keys), whole(mask, queries, keys))


def test_a_block_sees_itself_in_both_directions() -> None:
    image = torch.tensor([-1, 0, 0, -1])
    mask = Mask(after=0, query_block=image, key_block=image)
    assert whole(mask, 4, 4).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]
    assert not mask.is_causal


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"chunk": 0}, "a chunk holds at least one position"),
        ({"query_segment": torch.zeros(3).long()}, "query_segment and key_segment together"),
        ({"key_block": torch.zeros(3).long()}, "query_block and key_block together"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(rules: dict, text: str) -> None:
    with pytest.raises(OperatorError, match=text):
        Mask(**rules)


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        (
            {"key_valid": torch.ones(6, dtype=torch.bool)},
            r"key_valid has shape \(6,\); this operator needs \(5,\)",
        ),
        ({"query_valid": torch.ones(5, dtype=torch.bool)}, r"query_valid has shape \(5,\)"),
        ({"key_valid": torch.ones(3, 5, dtype=torch.bool)}, r"batch axes \(2,\)"),
        ({"allowed": torch.ones(5, 4, dtype=torch.bool)}, r"needs \(4, 5\)"),
    ],
)
def test_arrays_of_other_sizes_are_refused(rules: dict, text: str) -> None:
    with pytest.raises(OperatorError, match=text):
        Mask(**rules).check((2,), 4, 5)


@given(
    before=st.none() | st.integers(0, 6),
    after=st.none() | st.integers(0, 3),
    width=st.integers(1, 6),
    shift=st.integers(-2, 2),
)
def test_a_band_that_is_called_open_hides_nothing(before, after, width, shift):
    mask = Mask(before=before, after=after, query_origin=3)
    query = torch.arange(20)[:, None]
    key = query + 3 + shift - torch.arange(width)
    if mask.leaves_band_open(width, 3 + shift):
        assert bool(mask.visible(query, key).all())
    elif before is None and after is None:
        raise AssertionError("a mask without rules hides nothing")
