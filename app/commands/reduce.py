"""`attnscope reduce`: a smaller trace, whose card names what it lost."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["reduce"]

_READINGS = "Metrics to measure first and to keep the readings of, as in waad,fai."
_TOP_K = "Keep the K largest weights of each row, and how much the others were together."


class Narrow(StrEnum):
    """Types that factors can be rounded to."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def reduce(  # noqa: PLR0913 - one parameter per option
    trace: Annotated[Path, typer.Argument(help="A trace file.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The smaller trace.", show_default=False)
    ],
    top_k: Annotated[int | None, typer.Option(min=1, metavar="K", help=_TOP_K)] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to keep, as in 0,4-8,-1; by default all.")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="Heads to keep of every layer, as in 0,3; by default all.")
    ] = None,
    dtype: Annotated[
        Narrow | None, typer.Option(help="Round factors to this type; the error is measured.")
    ] = None,
    readings: Annotated[str | None, typer.Option(help=_READINGS)] = None,
    readings_only: Annotated[
        bool, typer.Option("--readings-only", help="Keep these readings, and no attention.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Make a trace smaller; what it loses stands on its card, and metrics that need it refuse."""
    from attnscope.app.layers import parse_layers
    from attnscope.app.reductions import print_reduced, reduce_file
    from attnscope.traces import open_trace

    names = [name.strip() for name in (readings or "").split(",") if name.strip()]
    reduced = reduce_file(
        open_trace(trace),
        output,
        names,
        force=force,
        options={
            "top_k": top_k,
            "layers": None if layers is None else parse_layers(layers),
            "heads": None if heads is None else parse_layers(heads),
            "dtype": None if dtype is None else dtype.value,
            "readings_only": readings_only,
        },
    )
    print_reduced(reduced, trace, output)
