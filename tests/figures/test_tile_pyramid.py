import pytest
import torch
from torch import Tensor

from attnscope.attention import AttentionOperator, DenseAttention, OuterAttention, SoftmaxAttention
from attnscope.figures import (
    TILE,
    FigureError,
    Reduction,
    TilePyramid,
    Zoom,
    cells_of,
    map_cells,
    maximum,
    mean,
    pattern_map,
)
from attnscope.figures.reduction import reduced_tile


def softmax(length: int) -> SoftmaxAttention:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, length, 4, generator=generator) for _ in range(2))
    return SoftmaxAttention(query, key)


def filled(attention: AttentionOperator) -> TilePyramid:
    pyramid = TilePyramid(source=pattern_map(attention))
    for stripe in pyramid.missing:
        pyramid.fill(stripe)
    return pyramid


def whole(pyramid: TilePyramid, level: int, reduction: Reduction) -> Tensor:
    """Put the tiles of a level side by side."""
    rows, columns = pyramid.grid(level)
    return torch.cat(
        [
            torch.cat([pyramid.tile(level, row, column, reduction) for column in range(columns)], 1)
            for row in range(rows)
        ]
    )


@pytest.mark.parametrize("reduction", [maximum, mean], ids=lambda reduction: reduction.name)
def test_tiles_of_every_level_make_up_the_reduced_map(reduction: Reduction) -> None:
    attention = softmax(2500)
    pyramid = filled(attention)
    assert (pyramid.top, pyramid.kept) == (4, range(3, 5))
    for level in range(1, 5):
        cells = -(-2500 // 2**level)
        expected = reduced_tile(attention, Zoom(cells=cells, reduction=reduction))
        assert expected.shape == (cells, cells)
        found = whole(pyramid, level, reduction)
        if level in pyramid.kept:  # the stated error of what is kept
            assert bool(((found - expected).abs() <= expected.abs() / 256)[~expected.isnan()].all())
            assert torch.equal(found.isnan(), expected.isnan())
        else:
            torch.testing.assert_close(found, expected, equal_nan=True)


def test_signed_maps_that_are_neither_square_nor_causal_have_pyramids() -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(1, 300, 3, generator=generator)
    right = torch.randn(1, 2200, 3, generator=generator)
    attention = OuterAttention(left, right, offset=None)
    pyramid = filled(attention)
    assert pyramid.grid(3) == (1, 2)
    direct = cells_of(pyramid.source, range(300), range(2200), 8)
    for reduction, expected in ((maximum, direct.max), (mean, direct.mean)):
        found = whole(pyramid, 3, reduction)
        torch.testing.assert_close(found, expected, rtol=1 / 256, atol=0)


def test_a_column_one_token_wide_is_seen_at_every_level() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = 0.1 * torch.randn(2, 1, 3000, 4, generator=generator)
    query[..., 0] = 8.0
    key[:, 1001, 0] = 8.0
    pyramid = filled(SoftmaxAttention(query, key))
    for level in range(pyramid.top + 1):
        rows, columns = map(range, pyramid.cells(level))
        cells = pyramid.window(level, rows, columns, maximum)
        column, first = 1001 >> level, (1001 >> level) + 1
        assert float(cells[first:, column].min()) > 0.9
        others = cells[first:].clone()
        others[:, column] = 0
        # Behind the column, next to nothing is left for anybody else.
        assert float(others.nan_to_num().max()) < 0.1


def test_small_maps_keep_nothing_and_need_no_pass() -> None:
    pyramid = TilePyramid(source=pattern_map(softmax(1024)))
    assert pyramid.top == 2
    assert not pyramid.kept
    assert not pyramid.missing
    assert pyramid.share == 1.0
    assert not pyramid.tile(2, 0, 0).isnan()[255].any()


def test_what_is_kept_is_bounded_however_long_the_map() -> None:
    zeros = torch.zeros(1, 1, 4).expand(1, 2**20, 4)
    pyramid = TilePyramid(source=pattern_map(SoftmaxAttention(zeros, zeros)))
    assert (pyramid.top, pyramid.kept) == (12, range(8, 13))
    assert pyramid.cells(pyramid.kept.start) == (4096, 4096)


def test_a_level_that_is_not_filled_shows_what_is_known() -> None:
    pyramid = TilePyramid(source=pattern_map(softmax(5000)))
    assert bool(pyramid.tile(5, 0, 0).isnan().all())
    assert not pyramid.is_filled(5, range(10))
    pyramid.fill(0)
    height = pyramid.stripe_height // 2**5
    assert pyramid.is_filled(5, range(height))
    assert not pyramid.is_filled(5, range(height + 1))
    known = ~pyramid.tile(5, 0, 0).isnan().all(1)
    assert known.sum() == height
    assert 0 < pyramid.share < 1
    assert pyramid.missing == [1, 2]


def test_filling_takes_the_memory_of_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = []
    tile = SoftmaxAttention.tile

    def watched(self: SoftmaxAttention, *args: object, **options: object) -> Tensor:
        result = tile(self, *args, **options)  # pyright: ignore[reportArgumentType] - passed on
        largest.append(result.numel())
        return result

    monkeypatch.setattr(SoftmaxAttention, "tile", watched)
    monkeypatch.setattr(map_cells, "STRIP_ENTRIES", 2**16)
    filled(softmax(2500))
    assert max(largest) <= 2**16
    assert sum(largest) < 0.6 * 2500**2  # and nothing behind the diagonal, nor anything twice


def test_queries_that_see_nothing_are_missing() -> None:
    pattern = torch.eye(600)
    pattern[300:] = 0
    attention = DenseAttention(pattern[None])
    tile = TilePyramid(source=pattern_map(attention)).tile(2, 0, 0)
    assert bool(tile[75:].isnan().all())
    assert not bool(tile[:75, :1].isnan().any())


def test_windows_cross_tiles() -> None:
    attention = softmax(700)
    pyramid = TilePyramid(source=pattern_map(attention))
    rows, columns = range(2 * TILE - 3, 2 * TILE + 5), range(TILE - 9, TILE + 1)
    torch.testing.assert_close(
        pyramid.window(0, rows, columns),
        attention.dense()[0, rows.start : rows.stop, columns.start : columns.stop],
    )


@pytest.mark.parametrize("place", [(-1, 0, 0), (3, 0, 0), (0, 4, 0), (1, 0, 2), (0, 0, -1)])
def test_a_tile_that_is_not_there_is_refused(place: tuple[int, int, int]) -> None:
    pyramid = TilePyramid(source=pattern_map(softmax(1000)))
    with pytest.raises(FigureError, match="levels are 0 to 2"):
        pyramid.tile(*place)
