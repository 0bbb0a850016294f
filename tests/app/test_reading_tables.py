import pytest
import torch

from attnscope.app.failures import CommandError
from attnscope.app.reading_tables import parse_head, print_reading
from attnscope.figures import HeadName
from attnscope.metrics import Reading


def reading(values, *axes, **facts):
    return Reading(
        name="speed", title="Speed", values=torch.as_tensor(values, dtype=torch.float64), axes=axes,
        unit="miles", bounds=(0.0, None), paper="A paper", **facts,
    )  # fmt: skip


def cells(text):
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("text", "head"), [("L5H1", (5, 1)), ("l0h12", (0, 12)), ("L-1H-2", (-1, -2))]
)
def test_a_head_is_written_by_layer_and_number(text, head):
    assert parse_head(text) == HeadName(*head)


@pytest.mark.parametrize("text", ["", "5", "L5", "H1", "L5H", "LxHy", "L5H1 L5H2"])
def test_what_is_no_head_is_refused(text):
    with pytest.raises(CommandError, match="write layer and head as in L5H1"):
        parse_head(text)


def test_one_number_is_printed_as_such(capsys):
    print_reading(reading(0.25))
    assert cells(capsys.readouterr().out)[:2] == [["Speed", "[miles]"], ["0.250"]]


def test_more_heads_than_fit_become_several_tables(capsys):
    print_reading(reading(torch.arange(80).view(2, 40), "layer", "head"))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    rows = [line for line in cells(text) if line[:1] == ["1"]]
    assert [float(cell) for row in rows for cell in row[1:]] == list(range(40, 80))


def test_a_long_list_shows_its_highest_values_in_order(capsys):
    values = torch.arange(200.0)
    values[3] = torch.nan
    tokens = tuple(f"t{i}" for i in range(200))
    print_reading(reading(values, "query", coordinates={"query": tokens}))
    text = capsys.readouterr().out
    rows = [line for line in cells(text) if line[:1] and line[0].isdigit()]
    assert [row[1] for row in rows] == [f"t{i}" for i in range(199, 169, -1)]
    assert "the 30 highest of 199 values (--top N shows N of them)" in text


def test_a_short_list_is_whole_in_its_own_order_with_gaps_for_what_is_undefined(capsys):
    print_reading(
        reading([3.0, float("nan"), 1.0], "token", coordinates={"token": ("a", "b\n", "\x1b[1m")})
    )
    rows = [line for line in cells(capsys.readouterr().out) if line[:1] and line[0].isdigit()]
    assert rows == [["0", "a", "3.000"], ["1", "b↵", "-"], ["2", "<1b>[1m", "1.000"]]


def test_equal_values_keep_their_order(capsys):
    print_reading(reading([1.0, 2.0, 2.0, 2.0], "token"), top=2)
    rows = [line for line in cells(capsys.readouterr().out) if line[:1] and line[0].isdigit()]
    assert rows == [["1", "2.000"], ["2", "2.000"]]


def test_values_of_layers_and_tokens_are_listed_by_entry(capsys):
    values = torch.zeros(2, 50)
    values[1, 7] = 9
    print_reading(reading(values, "layer", "token"))
    rows = [line for line in cells(capsys.readouterr().out) if line[:1] and line[0].isdigit()]
    assert rows[0] == ["1", "7", "9.000"]


def test_options_that_were_used_are_told(capsys):
    print_reading(reading(1.0, options={"window": 3, "queries": None, "drop": ()}))
    assert "bounds: 0 or more; window 3; A paper" in capsys.readouterr().out
