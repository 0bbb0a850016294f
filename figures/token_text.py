"""Tokens as text for people; untrusted, so controls are made visible and markup is escaped."""

import html
from collections.abc import Sequence

__all__ = ["escaped", "line_breaks", "plain", "position_labels", "separator", "shortened"]

_VISIBLE = {"\n": "↵", "\t": "⇥", "\r": "␍"}


def plain(token: str) -> str:
    r"""Return a token with what cannot be printed made visible, direction marks included.

    Example:
        >>> plain("a\nb"), plain("\u202egnirts")
        ('a↵b', '<U+202E>gnirts')
    """
    return "".join(
        character
        if character.isprintable()
        else _VISIBLE.get(character, f"<U+{ord(character):04X}>")
        for character in token
    )


def shortened(token: str, length: int = 14) -> str:
    """Return a token as one word of at most `length` characters; `␣` stands for mere spaces."""
    text = plain(token).strip(" ") or "␣" * len(token) or "∅"
    return text if len(text) <= length else text[: length - 1] + "…"


def escaped(text: str) -> str:
    """Return text that neither HTML nor plotly's own markup nor TeX reads as anything but text.

    Example:
        >>> escaped("<b>$x$</b>")
        '&lt;b&gt;&#36;x&#36;&lt;/b&gt;'
    """
    return html.escape(text).replace("$", "&#36;")


def line_breaks(token: str) -> tuple[int, int]:
    r"""Return how many lines end before a token's text and how many after it.

    Example:
        >>> line_breaks("\nSo"), line_breaks(".\n\n"), line_breaks("\n")
        ((1, 0), (0, 2), (0, 1))
    """
    if not token.strip("\n"):
        return 0, len(token)
    return len(token) - len(token.lstrip("\n")), len(token) - len(token.rstrip("\n"))


def separator(tokens: Sequence[str]) -> str:
    """Return what stands between tokens: nothing where they bring their own spaces, else a space.

    Example:
        >>> separator(["The", " cat"]), separator(["48", "+", "96"])
        ('', ' ')
    """
    return "" if any(" " in token for token in tokens) else " "


def position_labels(positions: range, step: int, tokens: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return one unlike label per cell: `17 the` for a token, `16-31` for several positions."""
    if step > 1:
        starts = range(positions.start, positions.stop, step)
        return tuple(_run(start, min(start + step, positions.stop) - 1) for start in starts)
    if tokens is None:
        return tuple(map(str, positions))
    return tuple(f"{position} {shortened(tokens[position])}" for position in positions)


def _run(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"  # noqa: RUF001
