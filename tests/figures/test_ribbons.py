import re

import pytest
import torch
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from attnscope.figures import ANCHOR, PREPLAN, FigureError, token_ribbon
from attnscope.figures.palette import BLUE, RED, TINT_STRENGTH, hex_color
from attnscope.figures.ribbon_print import wrap
from attnscope.metrics import Reading


def over_white(color: str) -> str:
    """Return the color of a translucent tint on white paper."""
    red, green, blue, alpha = map(float, re.findall(r"[\d.]+", color))
    return hex_color(
        tuple(1 - alpha * (1 - channel / 255) for channel in (red, green, blue))  # pyright: ignore[reportArgumentType] - three of them
    )


@pytest.mark.parametrize("bounds", [(0.0, 10.0), (None, None)])
def test_screen_and_paper_tint_alike(
    token_reading: Reading, bounds: tuple[float | None, float | None]
) -> None:
    values = torch.tensor([0.5, -2.0 if bounds[0] is None else 2.0, torch.nan, 1.0])
    reading = Reading(
        name="x",
        axes=("query",),
        values=values,
        bounds=bounds,
        coordinates=token_reading.coordinates,
    )
    ribbon = token_ribbon(reading)
    tokens = ribbon.markup().split('class="tokens"')[1].split('class="legend"')[0]
    screen = [over_white(color) for color in re.findall(r"background:(rgb[^\"]+)\"", tokens)]
    boxes = [c for c in ribbon.matplotlib().axes[0].collections if isinstance(c, PolyCollection)]
    paper = [to_hex(color) for color in boxes[0].get_facecolor()]
    assert len(screen) == 3
    for one, other in zip(screen, paper, strict=True):
        channels = zip(bytes.fromhex(one[1:]), bytes.fromhex(other[1:]), strict=True)
        assert max(abs(a - b) for a, b in channels) <= 1


def test_tokens_are_escaped_everywhere(token_reading: Reading, attack: str) -> None:
    markup = token_ribbon(token_reading, title=attack).html()
    assert attack not in markup
    assert "<script" not in markup
    assert markup.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3  # text, tooltip, title


def test_an_attribute_cannot_be_left() -> None:
    reading = Reading(
        name="x",
        axes=("token",),
        values=torch.ones(1),
        coordinates={"token": ('" onmouseover="alert(1)',)},
    )
    assert '" onmouseover' not in token_ribbon(reading).html()


def test_missing_numbers_are_hatched(token_reading: Reading) -> None:
    ribbon = token_ribbon(token_reading)
    assert ribbon.markup().count('class="missing"') == 2  # the token and its legend
    hatched = [box for box in ribbon.matplotlib().axes[0].collections if box.get_hatch()]
    assert len(hatched) == 1
    complete = Reading(
        name="x", axes=("token",), values=torch.ones(2), coordinates={"token": ("a", "b")}
    )
    assert "no value" not in token_ribbon(complete).markup()


def test_unit_and_bounds_stand_in_both_legends(token_reading: Reading) -> None:
    ribbon = token_ribbon(token_reading)
    words = [text.get_text() for text in ribbon.matplotlib().axes[0].texts]
    assert "2 tokens" in ribbon.markup()
    assert "possible: 0 to 10" in ribbon.markup()
    assert "2 tokens   possible: 0 to 10" in words
    assert token_reading.paper in words


def test_marks_stand_at_positions_in_the_whole_text(token_reading: Reading) -> None:
    ribbon = token_ribbon(token_reading, marks={PREPLAN: [7, 100], ANCHOR: [7, 10]})
    assert [word.marks for word in ribbon.words] == [(PREPLAN, ANCHOR), (), (), (ANCHOR,)]
    assert ribbon.markup().count(PREPLAN.glyph) == 2  # the token and the legend
    drawn = {
        line.get_color(): len(line.get_xdata()) for line in ribbon.matplotlib().axes[0].lines[:2]
    }
    assert drawn == {PREPLAN.color: 1, ANCHOR.color: 2}


def test_tooltips_tell_position_and_value(token_reading: Reading) -> None:
    tips = [word.tip for word in token_ribbon(token_reading).words]
    assert tips[0] == "7  The\n0.5 tokens"
    assert tips[2] == "9   cat↵\nno value"


def test_lines_end_where_the_text_does(token_reading: Reading) -> None:
    assert token_ribbon(token_reading).markup().count("<br>") == 1
    spots = wrap([10.0] * 4, [(0, 0), (2, 0), (0, 1), (0, 0)], 25.0)
    assert [(spot.line, spot.left) for spot in spots] == [(0, 0.0), (2, 0.0), (2, 11.5), (3, 0.0)]


def test_text_on_paper_is_never_read_as_mathematics(token_reading: Reading) -> None:
    texts = token_ribbon(token_reading).matplotlib().axes[0].texts
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())


def test_full_tints_are_those_of_the_palette() -> None:
    reading = Reading(
        name="x",
        axes=("token",),
        values=torch.tensor([-1.0, 1.0]),
        coordinates={"token": ("a", "b")},
    )
    markup = token_ribbon(reading).markup()
    for color in (BLUE, RED):
        red, green, blue = bytes.fromhex(color[1:])
        assert f"rgb({red} {green} {blue}/{TINT_STRENGTH:.3f})" in markup


def test_notebooks_show_the_html(token_reading: Reading) -> None:
    ribbon = token_ribbon(token_reading)
    assert ribbon._repr_html_() == ribbon.html()
    assert ribbon.html().startswith("<style>")


def test_what_is_not_one_number_per_token_is_refused(head_reading: Reading) -> None:
    with pytest.raises(FigureError, match=r"token_ribbon shows one number per token.*'head_span'"):
        token_ribbon(head_reading)
    layers = Reading(name="sink_rate", axes=("layer",), values=torch.ones(2))
    with pytest.raises(FigureError, match=r"'sink_rate' has \('layer',\)"):
        token_ribbon(layers)
    silent = Reading(name="x", axes=("token",), values=torch.ones(2))
    with pytest.raises(FigureError, match="no token texts along token; it has coordinates of"):
        token_ribbon(silent)
