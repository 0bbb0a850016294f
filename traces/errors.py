"""The errors of traces."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MissingSiteError", "MissingTraceError", "StoreError", "TraceError", "about"]


class TraceError(ValueError):
    """A trace cannot be read, written, or asked for what it does not hold."""


class MissingTraceError(TraceError, FileNotFoundError):
    """There is no file at the path; also a `FileNotFoundError`."""


class MissingSiteError(TraceError, KeyError):
    """A trace holds no such stack or layer; also a `KeyError`, as mappings raise it."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class StoreError(TraceError):
    """A store of traces cannot be read, written, or asked for what it does not hold."""


@contextmanager
def about(path: Path | str) -> Iterator[None]:
    """Turn what goes wrong with a file into a `TraceError` that names it."""
    try:
        yield
    except OSError as error:  # among them MissingTraceError
        kind = MissingTraceError if isinstance(error, FileNotFoundError) else TraceError
        raise kind(f"{path}: {error.strerror or error}") from error
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from error
