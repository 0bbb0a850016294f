"""`Commands`: the group of commands, in which an expected error ends as one line."""

from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = [
    "CommandError",
    "Commands",
    "is_debugging",
    "is_expected",
    "one_line",
    "print_error",
]

_WRONG_REQUEST = 2
_debugging = ContextVar("debugging", default=False)


class CommandError(ValueError):
    """A command line asks for what cannot be done."""


class Commands(TyperGroup):
    """The commands; what they cannot do they say in one line, and end with exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; `--debug` counts wherever it stands before a `--`."""
        options = args[: args.index("--")] if "--" in args else args
        if "--debug" in options:
            args = [
                "--debug",
                *(word for word in options if word != "--debug"),
                *args[len(options) :],
            ]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            Exit: The command met an expected error, which was printed.
        """
        before = _debugging.set(bool(ctx.params.get("debug")))
        try:
            return super().invoke(ctx)
        except Exception as error:
            if is_debugging() or not is_expected(error):
                raise
            print_error(error)
            raise typer.Exit(_WRONG_REQUEST) from error
        finally:
            _debugging.reset(before)


def is_debugging() -> bool:
    """Return whether a command runs with `--debug`: errors are to keep their tracebacks."""
    return _debugging.get()


def is_expected(error: Exception) -> bool:
    """Return whether an error tells the user what is wrong, rather than us."""
    if isinstance(error, BrokenPipeError):  # the reader of our output left: nobody to tell
        return False
    kinds = type(error).__mro__
    return (
        isinstance(error, OSError | MemoryError)
        or any(kind.__module__.partition(".")[0] == "attnscope" for kind in kinds)
        or any(kind.__name__ == "OutOfMemoryError" for kind in kinds)  # torch's, unimported
    )


def one_line(error: Exception) -> str:
    r"""Return what an error says as one line, with its kind where it is not one of ours.

    Example:
        >>> one_line(CommandError("no such\n  thing"))
        'no such thing'
        >>> one_line(KeyError("x"))
        "KeyError: 'x'"
    """
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if text and is_expected(error):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def print_error(error: Exception | str, before: str = "") -> None:
    """Print an error as one line to the error stream."""
    text = error if isinstance(error, str) else one_line(error)
    typer.echo(f"error: {before}{text}", err=True)
