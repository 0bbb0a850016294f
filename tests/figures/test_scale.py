import pytest
import torch

from attnscope.figures import DIVERGING, SEQUENTIAL, FigureError
from attnscope.figures.scale import (
    even_numbers,
    linear_scale,
    logarithmic_scale,
    range_text,
    short_number,
)


def test_a_mass_starts_at_its_lower_bound_and_ends_at_the_largest_value() -> None:
    scale = linear_scale(torch.tensor([0.2, 0.4, torch.nan]), label="mass", bounds=(0.0, 1.0))
    assert (scale.low, scale.colors) == (0.0, SEQUENTIAL)
    assert scale.high == pytest.approx(0.4)
    assert scale.bounds == (0.0, 1.0)


@pytest.mark.parametrize("bounds", [(None, None), (-1.0, 1.0), (None, 1.0)])
def test_what_can_take_both_signs_is_centered_at_zero(
    bounds: tuple[float | None, float | None],
) -> None:
    scale = linear_scale(torch.tensor([0.5, -2.0]), label="x", bounds=bounds)
    assert (scale.low, scale.high, scale.colors) == (-2.0, 2.0, DIVERGING)
    assert float(scale.fractions(torch.tensor(0.0))) == 0.5


def test_what_is_never_positive_ends_at_zero() -> None:
    scale = linear_scale(torch.tensor([-3.0, -1.0]), label="log p", bounds=(None, 0.0))
    assert (scale.low, scale.high, scale.colors) == (-3.0, 0.0, SEQUENTIAL)


def test_limits_overrule_the_values() -> None:
    scale = linear_scale(torch.tensor([0.2]), label="x", bounds=(0.0, 1.0), limits=(0.0, 1.0))
    assert (scale.low, scale.high) == (0.0, 1.0)


@pytest.mark.parametrize("values", [[torch.nan], [0.0, 0.0], []])
def test_nothing_to_tell_apart_still_makes_a_scale(values: list[float]) -> None:
    scale = linear_scale(torch.tensor(values), label="x", bounds=(0.0, None))
    assert scale.low < scale.high


def test_infinite_values_do_not_stretch_the_colors() -> None:
    scale = linear_scale(torch.tensor([1.0, torch.inf]), label="x", bounds=(0.0, None))
    assert scale.high == 1.0
    assert float(scale.fractions(torch.tensor(torch.inf))) == 1.0


def test_fractions_of_missing_values_are_missing() -> None:
    scale = linear_scale(torch.tensor([4.0]), label="x", bounds=(0.0, None))
    assert scale.fractions(torch.tensor([1.0, torch.nan])).isnan().tolist() == [False, True]


def test_logarithmic_colors_span_four_powers_of_ten() -> None:
    values = torch.tensor([1.0, 0.1, 1e-9, 0.0, torch.nan])
    scale = logarithmic_scale(linear_scale(values, label="x", bounds=(0.0, 1.0)), values)
    assert (scale.low, scale.high) == (-4.0, 0.0)
    assert scale.drawn(values)[:4].tolist() == pytest.approx([0.0, -1.0, -4.0, -4.0])
    assert scale.ticks == ([-4.0, -3.0, -2.0, -1.0, 0.0], ["≤1e-4", "0.001", "0.01", "0.1", "1"])


def test_logarithms_need_something_positive_and_nothing_negative() -> None:
    signed = torch.tensor([-1.0, 1.0])
    with pytest.raises(FigureError, match="gradient can be negative and has no logarithm"):
        logarithmic_scale(linear_scale(signed, label="gradient", bounds=(None, None)), signed)
    zeros = torch.zeros(2)
    with pytest.raises(FigureError, match="no value of mass is above zero"):
        logarithmic_scale(linear_scale(zeros, label="mass", bounds=(0.0, 1.0)), zeros)


def test_ticks_are_round_numbers_within_the_scale() -> None:
    scale = linear_scale(torch.tensor([58.3]), label="x", bounds=(0.0, None))
    assert scale.ticks == ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], ["0", "10", "20", "30", "40", "50"])


def test_numbers_are_written_short() -> None:
    assert [short_number(x) for x in (0.0, 12.345, -0.5, 123456.0, 2.5e7, 0.00025)] == [
        "0",
        "12.3",
        "-0.5",
        "123,456",
        "2.5e7",
        "2.5e-4",
    ]
    assert even_numbers([1.0, 22.0], among=[300.0]) == ["1", "22"]
    assert even_numbers([float("nan")]) == [""]


def test_possible_ranges_are_told_in_words() -> None:
    assert range_text((None, 0.0)) == "possible: 0 or less"
