import pytest
import torch
from torch import Tensor

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.figures import FigureError, Reduction, Zoom, maximum, mean
from attnscope.figures import reduction as reduction_module
from attnscope.figures.reduction import reduced_tile


def by_hand(pattern: Tensor, steps: tuple[int, int], reduction: str) -> Tensor:
    """Reduce a dense map with NaN at what does not exist, cell by cell, with lists."""
    rows, columns = pattern.shape
    cells = []
    for top in range(0, rows, steps[0]):
        row = []
        for left in range(0, columns, steps[1]):
            block = pattern[top : top + steps[0], left : left + steps[1]].flatten().tolist()
            known = [value for value in block if value == value]
            if not known:
                row.append(float("nan"))
            elif reduction == "mean":
                row.append(sum(known) / len(known))
            else:
                row.append(max(known, key=abs))
        cells.append(row)
    return torch.tensor(cells, dtype=pattern.dtype)


def causal_map(length: int, seed: int = 0) -> Tensor:
    scores = torch.randn(length, length, generator=torch.Generator().manual_seed(seed)).double()
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1)


@pytest.mark.parametrize("reduction", [maximum, mean], ids=lambda reduction: reduction.name)
@pytest.mark.parametrize("cells", [1, 4, 7, 23, 100])
def test_cells_equal_the_reduction_of_the_dense_map(reduction: Reduction, cells: int) -> None:
    pattern = causal_map(23)
    future = torch.ones(23, 23, dtype=torch.bool).triu(1)
    zoom = Zoom(cells=cells, reduction=reduction)
    step = zoom.step(range(23))
    expected = by_hand(pattern.masked_fill(future, torch.nan), (step, step), reduction.name)
    found = reduced_tile(DenseAttention(pattern[None]), zoom)
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("reduction", [maximum, mean], ids=lambda reduction: reduction.name)
def test_a_part_of_a_map_that_is_neither_square_nor_causal(reduction: Reduction) -> None:
    pattern = torch.rand(1, 11, 17).double().softmax(-1)
    attention = DenseAttention(pattern, offset=None, query_axis="probe", key_axis="patch")
    zoom = Zoom(queries=slice(2, 9), keys=slice(1, None), cells=3, reduction=reduction)
    expected = by_hand(pattern[0, 2:9, 1:], (3, 6), reduction.name)
    torch.testing.assert_close(reduced_tile(attention, zoom), expected)


def test_strips_of_any_size_give_the_same_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = DenseAttention(torch.stack([causal_map(40, seed) for seed in range(3)]))
    whole = reduced_tile(attention, Zoom(cells=9))
    for entries in (1, 50, 333, 2000):
        monkeypatch.setattr(reduction_module, "_STRIP_ENTRIES", entries)
        torch.testing.assert_close(reduced_tile(attention, Zoom(cells=9)), whole, equal_nan=True)


def test_the_whole_map_is_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Tensor:
        raise AssertionError("the whole map was asked for")

    largest = []
    tile = SoftmaxAttention.tile

    def watched(self: SoftmaxAttention, *args: object, **options: object) -> Tensor:
        result = tile(self, *args, **options)  # pyright: ignore[reportArgumentType] - passed on
        largest.append(result.numel())
        return result

    monkeypatch.setattr(SoftmaxAttention, "dense", refuse)
    monkeypatch.setattr(SoftmaxAttention, "tile", watched)
    monkeypatch.setattr(reduction_module, "_STRIP_ENTRIES", 5000)
    attention = SoftmaxAttention(torch.randn(2, 500, 4), torch.randn(2, 500, 4))
    cells = reduced_tile(attention, Zoom(cells=50))
    assert cells.shape == (50, 50)
    assert max(largest) <= 5000


def test_a_sink_one_token_wide_survives_the_maximum() -> None:
    pattern = torch.eye(256) * 0.1
    pattern[:, 137] = 0.9
    attention = DenseAttention(pattern[None])
    cells = reduced_tile(attention, Zoom(cells=16))
    assert bool((cells[9:, 137 // 16] == pattern[0, 137]).all())
    assert float(reduced_tile(attention, Zoom(cells=16, reduction=mean)).nan_to_num().max()) < 0.2


def test_a_signed_map_keeps_the_sign_of_what_is_largest_in_size() -> None:
    attention = DenseAttention(torch.tensor([[[0.5, -2.0], [1.0, 0.25]]]))
    assert reduced_tile(attention, Zoom(cells=1)).tolist() == [[-2.0]]


def test_heads_are_averaged_before_they_are_reduced() -> None:
    maps = torch.stack([causal_map(8, seed) for seed in range(4)])
    both = reduced_tile(DenseAttention(maps), Zoom(cells=3))
    once = reduced_tile(DenseAttention(maps.mean(0, keepdim=True)), Zoom(cells=3))
    torch.testing.assert_close(both, once, equal_nan=True)


def test_queries_that_see_nothing_are_missing_and_not_zero() -> None:
    pattern = causal_map(6)
    pattern[2] = 0
    cells = reduced_tile(DenseAttention(pattern[None]), Zoom())
    assert bool(cells[2].isnan().all())
    assert not bool(cells[3, :3].isnan().any())


def test_low_precision_is_drawn_in_single_precision() -> None:
    attention = SoftmaxAttention(torch.randn(1, 6, 4).bfloat16(), torch.randn(1, 6, 4).bfloat16())
    assert reduced_tile(attention, Zoom()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, "cells is 0; a map needs at least one"),
        ({"queries": slice(0, 9, 2)}, "queries step by 2; a map shows a run"),
    ],
)
def test_a_zoom_that_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(FigureError, match=message):
        Zoom(**options)


def test_a_zoom_on_nothing_says_what_there_is() -> None:
    with pytest.raises(FigureError, match=r"shows 0 queries and 5 keys; .* queries 0 to 4"):
        reduced_tile(DenseAttention(causal_map(5)[None]), Zoom(queries=slice(9, 12)))
