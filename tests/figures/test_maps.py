import pytest
import torch

from attnscope.attention import DenseAttention, OuterAttention
from attnscope.figures import DIVERGING, SEQUENTIAL, FigureError, Zoom, attention_map, mean

TOKENS = ("The", "<b>cat", " $at$", "mat")


@pytest.fixture
def attention() -> DenseAttention:
    return DenseAttention(
        torch.tensor(
            [
                [[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]],
                [[1.0, 0, 0, 0], [0.9, 0.1, 0, 0], [0.8, 0.1, 0.1, 0], [0.7, 0.1, 0.1, 0.1]],
            ]
        )
    )


def test_a_small_map_is_exact_and_its_future_empty(attention: DenseAttention) -> None:
    shown = attention_map(attention, 1, key_tokens=TOKENS)
    expected = attention.pattern[1].masked_fill(torch.ones(4, 4).triu(1) > 0, torch.nan)
    torch.testing.assert_close(shown.values, expected, equal_nan=True)
    assert shown.caption == "one cell per token"
    assert shown.title == "Attention of head 1"
    assert shown.key_labels == ("0 The", "1 <b>cat", "2 $at$", "3 mat")
    assert shown.query_labels == shown.key_labels


def test_without_a_head_the_mean_over_heads_is_shown(attention: DenseAttention) -> None:
    shown = attention_map(attention)
    assert float(shown.values[3, 0]) == pytest.approx(0.4)
    assert shown.caption == "mean of 2 heads, one cell per token"


@pytest.mark.parametrize(
    ("zoom", "caption"),
    [
        (Zoom(cells=2), "max over 2 × 2 tokens per cell"),  # noqa: RUF001
        (Zoom(cells=2, reduction=mean), "mean over 2 × 2 tokens per cell"),  # noqa: RUF001
        (Zoom(cells=2, queries=slice(0, 2)), "max over 1 × 2 tokens per cell"),  # noqa: RUF001
    ],
)
def test_a_reduced_map_says_how(attention: DenseAttention, zoom: Zoom, caption: str) -> None:
    shown = attention_map(attention, 0, zoom=zoom)
    assert shown.caption == caption
    assert caption in shown.plotly().layout.title.subtitle.text
    assert caption in [text.get_text() for text in shown.matplotlib().axes[0].texts]


def test_queries_that_start_later_take_the_tokens_at_their_positions() -> None:
    attention = DenseAttention(torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
    shown = attention_map(attention, key_tokens=("a", "b", "c"))
    assert shown.query_labels == ("0 b", "1 c")


def test_what_is_signed_is_drawn_around_zero() -> None:
    gradient = OuterAttention(torch.randn(1, 6, 3), torch.randn(1, 6, 3), offset=0)
    shown = attention_map(gradient, 0, zoom=Zoom(cells=3), title="dL/dA")
    assert shown.scale.colors is DIVERGING
    assert shown.scale.low == -shown.scale.high
    assert "max in size" in shown.caption
    with pytest.raises(FigureError, match="signed weight can be negative"):
        shown.with_log_colors()


def test_both_libraries_draw_the_same_cells_colors_and_texts(attention: DenseAttention) -> None:
    linear = attention_map(attention, 0, key_tokens=TOKENS, title="L0H0")
    for shown in (linear, linear.with_log_colors()):
        screen, paper = shown.plotly(), shown.matplotlib()
        image = paper.axes[0].images[0]
        drawn = shown.scale.drawn(shown.values)
        torch.testing.assert_close(torch.tensor(screen.data[0].z), drawn, equal_nan=True)
        cells = torch.tensor(image.get_array().filled(float("nan")))
        torch.testing.assert_close(cells, drawn, equal_nan=True)
        assert (screen.layout.coloraxis.cmin, screen.layout.coloraxis.cmax) == image.get_clim()
        assert screen.layout.coloraxis.colorbar.title.text == shown.scale.label
        legend = paper.axes[0].child_axes[0]
        assert legend.get_ylabel() == shown.scale.label
        ticks = [text.get_text() for text in legend.get_yticklabels()]
        assert ticks == list(screen.layout.coloraxis.colorbar.ticktext)
        assert paper.axes[0].get_title(loc="left").strip() == "L0H0"
        labels = [text.get_text() for text in paper.axes[0].get_xticklabels()]
        assert labels == list(shown.key_labels)


def test_colors_are_sequential_from_zero_to_the_largest_share(attention: DenseAttention) -> None:
    scale = attention_map(attention, 0, zoom=Zoom(queries=slice(3, 4))).scale
    assert (scale.low, scale.colors, scale.bounds) == (0.0, SEQUENTIAL, (0.0, 1.0))
    assert scale.high == pytest.approx(0.4)


def test_tokens_are_escaped_on_the_screen_and_plain_on_paper(attention: DenseAttention) -> None:
    shown = attention_map(attention, 0, key_tokens=TOKENS)
    names = list(shown.plotly().data[0].x)
    assert names[1:3] == ["1 &lt;b&gt;cat", "2 &#36;at&#36;"]
    text = shown.matplotlib().axes[0].get_xticklabels()[2]
    assert text.get_text() == "2 $at$"
    assert not text.get_parse_math()


def test_paper_shows_positions_where_tokens_do_not_fit() -> None:
    attention = DenseAttention(torch.eye(80)[None])
    axes = attention_map(attention, 0, key_tokens=["x"] * 80).matplotlib().axes[0]
    assert axes.get_xlim() == (-0.5, 79.5)
    assert axes.get_ylim() == (79.5, -0.5)
    assert "x" not in "".join(text.get_text() for text in axes.get_xticklabels())


def test_cells_stand_at_their_positions_on_paper() -> None:
    attention = DenseAttention(torch.eye(10)[None])
    shown = attention_map(attention, 0, zoom=Zoom(queries=slice(4, 10), keys=slice(3, 10), cells=4))
    image = shown.matplotlib().axes[0].images[0]
    assert image.get_extent() == [2.5, 10.5, 9.5, 3.5]  # two tokens per cell, the last one half


def test_a_single_batch_entry_is_no_batch(attention: DenseAttention) -> None:
    batched = DenseAttention(attention.pattern[None])
    torch.testing.assert_close(
        attention_map(batched, 1).values, attention_map(attention, 1).values, equal_nan=True
    )


def test_what_cannot_be_drawn_is_refused(attention: DenseAttention) -> None:
    with pytest.raises(FigureError, match="no head 2; this layer has heads 0 to 1"):
        attention_map(attention, 2)
    with pytest.raises(FigureError, match="3 key tokens for a map with 4 key positions"):
        attention_map(attention, 0, key_tokens=("a", "b", "c"))
    with pytest.raises(FigureError, match=r"one sequence; .* has the batch axes \(2,\)"):
        attention_map(DenseAttention(torch.eye(3).expand(2, 1, 3, 3)))
