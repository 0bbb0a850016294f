"""`attnscope report`: a trace as one HTML page, and as pictures for paper."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    trace: Annotated[Path, typer.Argument(help="A trace file.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="Write PNG figures to this folder, too.")
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="The stack of layers; by default the main one.")
    ] = None,
    title: Annotated[str, typer.Option(help="The heading; by default it names the model.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite page and figures.")] = False,
) -> None:
    """Draw a trace: one HTML file that loads nothing, and PNG figures."""
    from attnscope.app.outputs import check_free, check_no_pictures, make_folder
    from attnscope.app.screen import print_paths
    from attnscope.figures import save_figures, write_report
    from attnscope.traces import open_trace

    check_free([output], force=force)
    if figures is not None:
        check_no_pictures(figures, force=force)
    opened = open_trace(trace)
    make_folder(output.parent)
    written = [write_report(opened, output, stack=stack, title=title)]
    if figures is not None:
        written += save_figures(opened, figures, stack=stack)
    print_paths(written)
