import pytest

from attnscope.figures.token_text import escaped, plain, position_labels, separator, shortened


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" the", "the"), ("  ", "␣␣"), ("", "∅"), ("\t", "⇥"), ("a" * 20, "a" * 13 + "…")],
)
def test_every_token_shows_something(token: str, shown: str) -> None:
    assert shortened(token) == shown


def test_controls_cannot_act() -> None:
    assert plain("a\x1b[31m\u202eb\u200b") == "a<U+001B>[31m<U+202E>b<U+200B>"


def test_markup_is_only_text(attack: str) -> None:
    assert "<" not in escaped(attack)
    assert escaped('"&$') == "&quot;&amp;&#36;"


def test_cells_are_named_by_their_positions() -> None:
    assert position_labels(range(3, 8), 2, None) == ("3–4", "5–6", "7")  # noqa: RUF001
    assert position_labels(range(1, 3), 1, ("a", " b", "b")) == ("1 b", "2 b")
    assert position_labels(range(2), 1, None) == ("0", "1")


def test_words_are_joined_by_spaces_and_pieces_are_not() -> None:
    assert separator(("a", "b")) == " "
    assert separator(("a", " b")) == ""
