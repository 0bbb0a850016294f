"""Readings as files: long tables with one row per value, none of it rounded."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas

from attnscope.app.failures import CommandError
from attnscope.app.outputs import make_folder
from attnscope.metrics import Reading
from attnscope.traces import replacement

__all__ = ["export_csv", "export_parquet", "long_table"]


def long_table(readings: Sequence[Reading]) -> pandas.DataFrame:
    """Return the values of readings below each other.

    The columns are `metric`, a number for each axis, a text for each axis of tokens, and `value`;
    an axis that a metric does not have is empty there.
    """
    frames = [
        reading.to_pandas().rename(columns={reading.name: "value"}).assign(metric=reading.name)
        for reading in readings
    ]
    axes = dict.fromkeys(column for frame in frames for column in frame if column not in _OUTER)
    table = pandas.concat(frames, ignore_index=True).reindex(columns=["metric", *axes, "value"])
    whole = {column: "Int64" for column in axes if pandas.api.types.is_numeric_dtype(table[column])}
    return table.astype(whole)


def export_csv(readings: Sequence[Reading], path: Path) -> None:
    """Write readings as comma-separated text; numbers have all the digits that tell them apart."""
    make_folder(path.parent)
    with replacement(path) as stream:
        stream.write(long_table(readings).to_csv(index=False).encode("utf-8"))


def export_parquet(readings: Sequence[Reading], path: Path) -> None:
    """Write readings as a parquet file.

    Raises:
        CommandError: pyarrow is not installed.
    """
    buffer = BytesIO()
    try:
        long_table(readings).to_parquet(buffer, index=False, engine="pyarrow")
    except ImportError as error:
        raise CommandError(
            "parquet files need pyarrow, which is not installed: pip install attnscope[tables]"
        ) from error
    make_folder(path.parent)
    with replacement(path) as stream:
        stream.write(buffer.getvalue())


_OUTER = ("metric", "value")
