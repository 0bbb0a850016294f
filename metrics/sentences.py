"""`sentence_spans`: where the sentences of a token sequence begin and end."""

from collections.abc import Sequence

__all__ = ["SENTENCE_ENDS", "sentence_spans"]

SENTENCE_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f")
"""What the last token of a sentence ends with, full-width marks included."""


def sentence_spans(
    tokens: Sequence[str], start: int = 0, stop: int | None = None
) -> tuple[tuple[int, int], ...]:
    r"""Return the first position of each sentence and the one after its last, in order.

    Our reading of "split into sentences" on tokens: a sentence ends with a token that holds a line
    break or that ends with a sentence mark, unless the next token begins with a digit or with
    another such mark (so that 3.14 and "?!" stay whole). Every position belongs to one sentence.

    Args:
        tokens: The text of each token, spaces and line breaks included.
        start: First position to split.
        stop: Position after the last one; by default the end.

    Example:
        >>> sentence_spans(["So", " 3", ".", "14", ".", " Yes", "!", "\n", "Then", " x"])
        ((0, 5), (5, 8), (8, 10))
    """
    stop = len(tokens) if stop is None else stop
    ends = [
        position + 1
        for position in range(start, stop)
        if _ends(tokens[position], tokens[position + 1] if position + 1 < stop else "")
    ]
    if start < stop and (not ends or ends[-1] < stop):
        ends.append(stop)
    return tuple(zip([start, *ends[:-1]], ends, strict=True)) if ends else ()


def _ends(token: str, following: str) -> bool:
    if "\n" in following and not following.strip():
        return False
    if "\n" in token:
        return True
    return token.rstrip().endswith(SENTENCE_ENDS) and not following.startswith(
        (*SENTENCE_ENDS, *"0123456789")
    )
