import pytest
import typer
from typer.testing import CliRunner

from attnscope.app.failures import CommandError, Commands, is_expected, one_line
from attnscope.traces import TraceError


def failing(error: Exception) -> typer.Typer:
    app = typer.Typer(cls=Commands)

    @app.command()
    def fail(word: str = "") -> None:
        raise error

    @app.callback()
    def options(debug: bool = typer.Option(False, "--debug")) -> None:
        pass

    return app


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TraceError("there is\n  no such file"), "error: there is no such file"),
        (CommandError("that is wrong"), "error: that is wrong"),
        (FileNotFoundError(2, "No such file", "x.txt"), "error: x.txt: No such file"),
        (MemoryError(), "error: MemoryError"),
    ],
)
def test_an_expected_error_is_one_line_on_the_error_stream_and_code_two(error, line):
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == 2
    assert result.stderr.strip() == line
    assert not result.stdout


def test_debug_lets_an_expected_error_out_from_any_place():
    for words in (["--debug", "fail"], ["fail", "--debug"]):
        result = CliRunner().invoke(failing(CommandError("wrong")), words)
        assert isinstance(result.exception, CommandError)


def test_debug_behind_two_dashes_is_a_word_of_its_own():
    result = CliRunner().invoke(failing(CommandError("wrong")), ["fail", "--", "--debug"])
    assert result.exit_code == 2
    assert not isinstance(result.exception, CommandError)


def test_an_error_of_ours_keeps_its_traceback():
    result = CliRunner().invoke(failing(ZeroDivisionError("oops")), ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


def test_a_closed_pipe_is_no_error_to_tell():
    assert not is_expected(BrokenPipeError())
    assert is_expected(PermissionError())


def test_an_unexpected_error_names_its_kind():
    assert one_line(IndexError("out of range")) == "IndexError: out of range"
    assert one_line(RuntimeError()) == "RuntimeError"
