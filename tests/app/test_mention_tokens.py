"""Which tokens name an object, whatever pieces the words come in."""

from attnscope.app.mention_tokens import mention_tokens

TABLE = {"umbrella": "umbrella", "dog": "dog", "hot dog": "hot dog", "red ring": "red ring"}


def prefixes(*pieces: str) -> list[str]:
    return ["".join(pieces[: stop + 1]) for stop in range(len(pieces))]


def places(*pieces: str) -> list[tuple[str, int, int]]:
    return [(one.name, one.start, one.stop) for one in mention_tokens(prefixes(*pieces), TABLE)]


def test_a_word_in_pieces_is_all_of_them() -> None:
    assert places("An", " umb", "rella", " and") == [("umbrella", 1, 3)]


def test_a_name_of_two_words_is_no_other_name() -> None:
    assert places("a", " hot", " dog", " and", " a", " dog") == [("hot dog", 1, 3), ("dog", 5, 6)]


def test_a_mention_that_does_not_last_is_none() -> None:
    assert places("a", " dog", "ma") == []
    assert places("a", " red", " ring", "let", " dog") == [("dog", 4, 5)]


def test_each_of_two_mentions_has_its_own_tokens() -> None:
    assert places("dog", " dog") == [("dog", 0, 1), ("dog", 1, 2)]


def test_nothing_said_mentions_nothing() -> None:
    assert mention_tokens([], TABLE) == []
