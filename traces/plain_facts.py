"""Plain facts of a trace file's JSON: numbers, text, lists and mappings, each of its kind."""

from collections.abc import Mapping
from typing import Any

from attnscope.traces.errors import TraceError

__all__ = ["as_names", "as_number", "as_text", "as_truth", "as_whole", "check_plain"]

_PLAIN = (str, int, float, bool, type(None))


def check_plain(fact: object, where: str) -> None:
    """Refuse what JSON would not give back as it is.

    Raises:
        TraceError: A fact is not a number, text, list or mapping of these.
    """
    if isinstance(fact, Mapping):
        if not all(isinstance(name, str) for name in fact):
            raise TraceError(f"{where}: fact {dict(fact)!r} has names that are not text")
        for name, value in fact.items():
            check_plain(value, f"{where}: {name}")
    elif isinstance(fact, list | tuple):
        for value in fact:
            check_plain(value, where)
    elif type(fact) not in _PLAIN:
        raise TraceError(
            f"{where}: {fact!r} is a {type(fact).__name__}; "
            "a trace stores facts that are numbers, text, lists or mappings of these"
        )


def as_names(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return texts by name."""
    return {name: as_text(value) for name, value in fields.items()}


def as_text(value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TraceError(f"has {value!r} where text should stand")
    return value


def as_whole(value: object) -> int:
    """Return a whole number."""
    if type(value) is not int:
        raise TraceError(f"has {value!r} where a whole number should stand")
    return value


def as_number(value: object) -> float | None:
    """Return a number, or None."""
    if value is not None and type(value) not in (int, float):
        raise TraceError(f"has {value!r} where a number should stand")
    return None if value is None else float(value)  # pyright: ignore[reportArgumentType]


def as_truth(value: object) -> bool:
    """Return a truth value."""
    if type(value) is not bool:
        raise TraceError(f"has {value!r} where true or false should stand")
    return value
