import pytest

from attnscope.app.failures import CommandError
from attnscope.app.layers import parse_layers


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("0,1,-1", [0, 1, -1]),
        ("4-8", [4, 5, 6, 7, 8]),
        ("-2--1", [-2, -1]),
        (" 3 , 1-3 ", [3, 1, 2]),
        ("0", [0]),
    ],
)
def test_numbers_and_ranges_become_layers(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1.5", "0x1", "1-2-3"])
def test_what_is_no_number_or_range_is_refused(text):
    with pytest.raises(CommandError, match="is no layer; write layers as in 0,4-8,-1"):
        parse_layers(text)


@pytest.mark.parametrize("text", ["5-3", "0--1", "-1--3"])
def test_a_range_has_to_ascend_and_count_from_one_side(text):
    with pytest.raises(CommandError, match=f"'{text}' is no range of layers"):
        parse_layers(text)
