"""`attnscope app`: the workbench in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from attnscope.app.failures import CommandError, is_debugging
from attnscope.app.server import DEFAULT_STORE

__all__ = ["workbench"]

_WHAT = (
    "A folder of traces, a trace, or a model to capture live (a folder, a hub id, or `countdown`); "
    f"by default the folder `{DEFAULT_STORE}`."
)
_LOCAL = ("localhost", "127.0.0.1", "::1")


def workbench(
    what: Annotated[str, typer.Argument(metavar="[STORE|TRACE|MODEL]", help=_WHAT)] = str(
        DEFAULT_STORE
    ),
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that may be captured live, too; may be repeated."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; by default this machine alone.")
    ] = "localhost",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The port; by default 8501, or another if taken."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open the workbench: traces, rhythm, heads, maps and credit in a browser."""
    from attnscope.app.server import Serving, free_port, serve

    store, trace, models = _meant(what)
    if host not in _LOCAL:
        typer.echo(f"whoever reaches {host} can read and delete the traces of {store}", err=True)
    serving = Serving(
        store=store,
        trace=trace,
        models=(*models, *(model or ())),
        host=host,
        port=free_port(host) if port is None else port,
        opens=browser,
        details=is_debugging(),
    )
    raise typer.Exit(serve(serving))


def _meant(what: str) -> tuple[Path, str, tuple[str, ...]]:
    """Return the store, the trace to open and the models that an argument means."""
    from attnscope.app.subjects import SHIPPED
    from attnscope.traces import open_trace

    path, default = Path(what), DEFAULT_STORE
    if path.is_file():
        open_trace(path)
        return path.parent, path.name, ()
    if path.is_dir() and not (path / "config.json").is_file():
        return path, "", ()
    looks_local = what.startswith((".", "/", "~")) or path.suffix or what.count("/") > 1
    if what in SHIPPED or path.is_dir() or not (looks_local or path == default):
        return default, "", () if what in SHIPPED else (what,)
    if path == default:
        return default, "", ()
    raise CommandError(
        f"there is no {what!r}; give a folder of traces, a trace, a folder of a model, a hub id, "
        f"or one of {', '.join(SHIPPED)}"
    )
