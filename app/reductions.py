"""`reduce_file`: a smaller trace file, and how much smaller it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from attnscope.app.outputs import check_free, make_folder
from attnscope.app.screen import screen, visible
from attnscope.metrics import measure
from attnscope.traces import Trace, reduce

__all__ = ["print_reduced", "reduce_file"]


def reduce_file(
    trace: Trace,
    output: Path,
    readings: Sequence[str],
    *,
    force: bool,
    options: Mapping[str, Any],
) -> Trace:
    """Return a reduced trace that was written to a file.

    Args:
        trace: The whole trace.
        output: Where to write.
        readings: Metrics that are measured on the whole trace, and kept.
        force: Overwrite a file.
        options: What `attnscope.traces.reduce` takes besides.

    Raises:
        CommandError: The file stands already.
        MetricError: A metric is unknown, or cannot be measured.
        TraceError: The trace cannot be reduced so, or written.
    """
    check_free([output], force=force)
    layers = options.get("layers")
    # Readings are of the layers that stay, so that they say the same as the trace beside them.
    measured = trace if layers is None else trace.select(layers)
    kept = [measure(measured, name) for name in readings]
    reduced = reduce(trace, readings=kept, **options)
    make_folder(output.parent)
    reduced.save(output)
    return reduced


def print_reduced(reduced: Trace, before: Path, after: Path) -> None:
    """Print what the smaller trace is, and the sizes of the files."""
    console = screen()
    for line in reduced.card.lines():
        console.print(visible(line), soft_wrap=True)
    for name, reading in reduced.readings.items():
        console.print(f"kept: {visible(name)} {visible(repr(reading))}", soft_wrap=True)
    sizes = decimal(before.stat().st_size), decimal(after.stat().st_size)
    console.print(f"\nwritten:\n  {after} ({sizes[1]}; {sizes[0]} before)", soft_wrap=True)
