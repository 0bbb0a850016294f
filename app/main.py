"""The command line `attnscope`: its commands put together."""

from typing import Annotated

import typer

from attnscope.app.commands.app import workbench
from attnscope.app.commands.capture import capture
from attnscope.app.commands.credit import credit
from attnscope.app.commands.demo import demo
from attnscope.app.commands.hallucination import hallucination
from attnscope.app.commands.measure import measure
from attnscope.app.commands.metrics import metrics
from attnscope.app.commands.neighborhood import neighborhood
from attnscope.app.commands.reduce import reduce
from attnscope.app.commands.report import report
from attnscope.app.commands.show import show
from attnscope.app.commands.store import commands as store
from attnscope.app.commands.verify import verify
from attnscope.app.failures import Commands

__all__ = ["app", "main"]

app = typer.Typer(
    name="attnscope",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
for command in (
    demo,
    capture,
    show,
    verify,
    reduce,
    measure,
    credit,
    hallucination,
    report,
    metrics,
    neighborhood,
):
    app.command()(command)
app.command("app")(workbench)
app.add_typer(store)


def _print_version(wanted: bool) -> bool:
    if wanted:
        from attnscope import __version__

        typer.echo(f"attnscope {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def attnscope(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, too (at any place).")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """See, measure and change what attention does."""


def main() -> None:
    """Run the command line."""
    app()
