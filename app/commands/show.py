"""`attnscope show`: what is in a trace file, without reading its tensors."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["show"]


def show(
    trace: Annotated[Path, typer.Argument(help="A trace file.", show_default=False)],
) -> None:
    """Tell what is in a trace: model, tokens, layers and sizes."""
    from attnscope.app.contents import print_contents
    from attnscope.traces import open_trace

    print_contents(open_trace(trace), trace)
