import pytest
import torch

from attnscope.attention import DenseAttention, OuterAttention
from attnscope.figures import (
    AttentionMap,
    CellWindow,
    HeadMap,
    Reduction,
    cells_of,
    map_view,
    maximum,
    mean,
    pattern_map,
    strongest_cells,
    view_scale,
)

PATTERN = torch.tensor([[[1.0, 0.0, 0.0], [0.7, 0.3, 0.0], [0.06, 0.9, 0.04]]])
WORDS = ("to", "be", "<or>")


def causal() -> HeadMap:
    return pattern_map(DenseAttention(PATTERN))


def window(source: HeadMap, level: int = 0, reduction: Reduction = maximum) -> CellWindow:
    cells = cells_of(source, range(source.queries), range(source.keys), 2**level)
    rows, columns = (range(length) for length in cells.max.shape)
    values = cells.max if reduction is maximum else cells.mean
    return CellWindow(
        source=source,
        level=level,
        rows=rows,
        columns=columns,
        reduction=reduction,
        values=values,
    )


def view(level: int = 0, reduction: Reduction = maximum) -> AttentionMap:
    own = window(causal(), level, reduction)
    scale = view_scale(own, contrast=1, logarithmic=False)
    return map_view(own, scale, query_tokens=WORDS, key_tokens=WORDS, title="One head")


def test_the_strongest_cells_are_named_by_their_tokens() -> None:
    first, second = strongest_cells(view(), 2)
    assert (first.query, first.key, first.value) == ("0 to", "0 to", 1.0)
    assert (second.query, second.key, round(second.value, 4)) == ("2 <or>", "1 be", 0.9)


def test_cells_of_nothing_are_not_among_the_strongest() -> None:
    assert len(strongest_cells(view(), 100)) == len(PATTERN[0].nonzero())


def test_cells_of_several_entries_are_named_by_their_positions() -> None:
    picture = view(level=1, reduction=mean)
    assert picture.query_labels == ("0–1", "2")  # noqa: RUF001
    assert picture.caption == "mean over 2 × 2 tokens per cell"  # noqa: RUF001
    assert (picture.queries, picture.steps) == (range(3), (2, 2))


def test_a_view_is_drawn_on_paper_and_on_a_screen() -> None:
    picture = view()
    assert picture.matplotlib().axes[0].get_title(loc="left").strip() == "One head"
    assert picture.plotly().to_dict()["data"][0]["type"] == "heatmap"


def test_colors_end_at_a_round_number() -> None:
    source = pattern_map(DenseAttention(0.031 * torch.ones(1, 2, 2)))
    scale = view_scale(window(source), contrast=1, logarithmic=False)
    assert (scale.low, scale.high) == (0.0, pytest.approx(0.05))
    brighter = view_scale(window(source), contrast=10, logarithmic=False)
    assert brighter.high == pytest.approx(0.005)


def test_logarithmic_colors_span_four_powers_of_ten() -> None:
    scale = view_scale(window(causal()), contrast=1, logarithmic=True)
    assert (scale.low, scale.high, scale.logarithmic) == (-4.0, 0.0, True)


def test_numbers_with_a_sign_have_linear_colors_around_zero() -> None:
    source = pattern_map(OuterAttention(torch.tensor([[[1.0]]]), torch.tensor([[[-3.0], [2.0]]])))
    scale = view_scale(window(source), contrast=1, logarithmic=True)
    assert (scale.low, scale.high, scale.diverging) == (-5.0, 5.0, True)


def test_a_view_without_any_number_has_colors() -> None:
    source = pattern_map(DenseAttention(torch.zeros(1, 2, 2)))
    scale = view_scale(window(source), contrast=1, logarithmic=True)
    assert (scale.low, scale.high, scale.logarithmic) == (0.0, 1.0, False)
