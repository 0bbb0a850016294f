import pytest

from attnscope.figures import ANCHOR, DIVERGING, PREPLAN, SEQUENTIAL
from attnscope.figures.palette import ColorStops, contrasting_ink, hex_color, tints


@pytest.mark.parametrize("colors", [SEQUENTIAL, DIVERGING], ids=lambda colors: colors.name)
def test_both_libraries_get_the_same_colors(colors: ColorStops) -> None:
    drawn = colors.matplotlib()
    for fraction, color in colors.plotly():
        assert drawn(fraction)[:3] == pytest.approx(colors.at(float(fraction)), abs=1 / 128)
        assert hex_color(colors.at(float(fraction))) == color
    assert drawn(float("nan"))[3] == 0  # what is missing stays transparent


def test_sequential_colors_grow_brighter_and_diverging_ones_are_palest_in_the_middle() -> None:
    def lightness(colors: ColorStops, fraction: float) -> float:
        red, green, blue = colors.at(fraction)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    steps = [i / 50 for i in range(51)]
    bright = [lightness(SEQUENTIAL, step) for step in steps]
    assert bright == sorted(bright)
    pale = [lightness(DIVERGING, step) for step in steps]
    assert pale[:26] == sorted(pale[:26])
    assert pale[25:] == sorted(pale[25:], reverse=True)


def test_ink_contrasts_with_its_ground() -> None:
    assert contrasting_ink((0.0, 0.0, 0.3)) == "#ffffff"
    assert contrasting_ink((0.9, 0.9, 0.2)) == "#000000"


def test_roles_differ_in_color_and_in_shape() -> None:
    assert len({PREPLAN.color, ANCHOR.color}) == 2
    assert len({PREPLAN.plotly, ANCHOR.plotly}) == 2
    assert len({PREPLAN.matplotlib, ANCHOR.matplotlib}) == 2
    assert len({PREPLAN.glyph, ANCHOR.glyph}) == 2


def test_a_full_tint_stays_readable_in_black() -> None:
    for mark in (PREPLAN, ANCHOR):
        assert contrasting_ink(tints(mark.color).sequential.at(1.0)) == "#000000"
