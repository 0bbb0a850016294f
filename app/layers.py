"""`parse_layers`: layers as they are written on a command line."""

import re

from attnscope.app.failures import CommandError

__all__ = ["parse_layers"]

_LAYERS = re.compile(r"(-?\d{1,6})(?:-(-?\d{1,6}))?")


def parse_layers(text: str) -> list[int]:
    """Return the layer numbers of a list of numbers and ranges, each once, in the order given.

    A range holds both of its ends; negative numbers count from the last layer.

    Raises:
        CommandError: The text is no such list.

    Example:
        >>> parse_layers("0, 4-6,-1"), parse_layers("-3--1")
        ([0, 4, 5, 6, -1], [-3, -2, -1])
    """
    numbers: dict[int, None] = {}
    for part in text.split(","):
        match = _LAYERS.fullmatch(part.strip())
        if match is None:
            raise CommandError(f"{part.strip()!r} is no layer; write layers as in 0,4-8,-1")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if (first < 0) != (last < 0) or last < first:
            raise CommandError(
                f"{part.strip()!r} is no range of layers: its ends ascend, and both count from "
                "the first layer (4-8) or both from the last one (-3--1)"
            )
        numbers.update(dict.fromkeys(range(first, last + 1)))
    return list(numbers)
