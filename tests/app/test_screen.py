from pathlib import Path

import pytest

from attnscope.app.screen import decimals_for, plain_table, print_paths, screen, visible, written


def test_untrusted_text_cannot_steer_a_terminal():
    assert visible("a\x1b]0;title\x07b") == "a<1b>]0;title<07>b"
    assert visible("a\u202eb") == "a<202e>b"
    assert visible("a\nb\tc") == "a↵b⇥c"
    assert visible("naïve 日本") == "naïve 日本"


def test_markup_in_a_table_stays_text(capsys):
    table = plain_table("[red]head[/red]")
    table.add_row("[bold]cell[/bold]")
    screen().print(table)
    shown = capsys.readouterr().out
    assert "[red]head[/red]" in shown
    assert "[bold]cell[/bold]" in shown


def test_paths_are_printed_whole(capsys):
    path = Path("x" * 150)
    print_paths([path])
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([], 3), ([float("nan"), 0.0], 3), ([0.001], 3), ([9.9], 3), ([-123.0], 1)],
)
def test_a_column_has_the_decimals_that_its_largest_number_needs(values, decimals):
    assert decimals_for(values) == decimals


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (-1.005, "-1.00"), (float("inf"), "inf"), (0.004, "4e-03")]
)
def test_numbers_too_small_for_their_column_are_not_shown_as_nothing(value, text):
    assert written(value, 2) == text
