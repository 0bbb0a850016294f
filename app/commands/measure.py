"""`attnscope measure`: metrics of a trace, on the screen and as exact tables."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["measure"]


def measure(  # noqa: PLR0913 - one parameter per option
    trace: Annotated[Path, typer.Argument(help="A trace file.", show_default=False)],
    metric: Annotated[
        list[str],
        typer.Argument(
            help="Names of metrics; `attnscope metrics` lists them.", show_default=False
        ),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the metrics, as in window=20; may be repeated.",
        ),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="The stack of layers; by default the main one.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Show one head, as in L5H1, instead of the mean of all.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Show the N highest values only.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every value to this file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write every value to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite these files.")] = False,
) -> None:
    """Measure a trace; tables hold one row per value, with its layer, head and token."""
    from attnscope.app.measurements import measure_all
    from attnscope.app.outputs import check_free
    from attnscope.app.reading_export import export_csv, export_parquet
    from attnscope.app.reading_tables import parse_head, print_reading
    from attnscope.traces import open_trace

    check_free([path for path in (csv, parquet) if path is not None], force=force)
    shown = None if head is None else parse_head(head)
    readings = measure_all(open_trace(trace), metric, option or [], stack=stack)
    for reading in readings:
        print_reading(reading, head=shown, top=top)
    if csv is not None:
        export_csv(readings, csv)
    if parquet is not None:
        export_parquet(readings, parquet)
