"""`mention_tokens`: which tokens of a caption name which object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnscope.metrics import mentioned_objects

__all__ = ["Mention", "mention_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A mention of an object.

    Attributes:
        name: The object.
        start: The first token of its name.
        stop: The token after the last one.
    """

    name: str
    start: int
    stop: int


def mention_tokens(prefixes: Sequence[str], synonyms: Mapping[str, str]) -> list[Mention]:
    """Return the mentions of a caption with their tokens, in order.

    The last token of a mention is the first one from which on it stays mentioned, so that `cat` is
    none in `cattle`; its first token is the last one from which its words still name the object.

    Args:
        prefixes: The caption up to each of its tokens and that token; the last is all of it.
        synonyms: The object that each name stands for.

    Example:
        >>> table = {"hot dog": "hot dog", "dog": "dog", "cat": "cat"}
        >>> said = ["a", "a hot", "a hot dog", "a hot dog, cat", "a hot dog, cattle"]
        >>> mention_tokens(said, table)
        [Mention(name='hot dog', start=1, stop=3)]
    """
    if not prefixes:
        return []
    found = [mentioned_objects(text, synonyms) for text in prefixes]
    return [_mention(prefixes, found, number, synonyms) for number, _ in enumerate(found[-1])]


def _mention(
    prefixes: Sequence[str],
    found: Sequence[tuple[str, ...]],
    number: int,
    synonyms: Mapping[str, str],
) -> Mention:
    whole = found[-1][: number + 1]
    last = len(found) - 1
    while last and found[last - 1][: number + 1] == whole:
        last -= 1
    first = last
    while first and mentioned_objects(_between(prefixes, first, last), synonyms) != whole[-1:]:
        first -= 1
    return Mention(name=whole[-1], start=first, stop=last + 1)


def _between(prefixes: Sequence[str], first: int, last: int) -> str:
    """Return what the tokens from `first` to `last` say."""
    return prefixes[last][len(prefixes[first - 1]) if first else 0 :]
