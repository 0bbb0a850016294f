"""Readings as rows of a store: one row per layer and head, exact, for SQL and for `Reading`."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch

from attnscope.traces.stored_reading import StoredReading

__all__ = ["reading_schema", "reading_table", "stored_readings"]

_OUTER = ("layer", "head")


_FACTS = ("bounds", "paper", "title", "coordinates", "positions", "options")
"""Fields of a reading that its first row keeps as they are."""


def reading_schema() -> Any:
    """Return the columns of readings, as a `pyarrow.Schema`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("row", pa.int32()),
            ("metric", pa.string()),
            ("unit", pa.string()),
            ("stack", pa.string()),
            ("layer", pa.int32()),
            ("head", pa.int32()),
            ("axes", pa.list_(pa.string())),
            ("shape", pa.list_(pa.int32())),
            ("values", pa.list_(pa.float64())),
            ("facts", pa.string()),
        ]
    )


def reading_table(readings: Mapping[str, list[StoredReading]]) -> Any:
    """Return readings as a `pyarrow.Table`, by the id of what they were measured on.

    A row holds the values of one layer and one head, along the axes that are left (`query`); a
    reading without layers or heads has nothing there. The first row of each reading keeps what
    else there is to know, as JSON, so that the reading can be put together again.
    """
    import pyarrow as pa

    rows = [
        row | {"id": name, "row": number}
        for name, own in readings.items()
        for number, row in enumerate(row for reading in own for row in _rows(reading))
    ]
    return pa.Table.from_pylist(rows, schema=reading_schema())


def stored_readings(table: Any) -> dict[str, dict[str, StoredReading]]:
    """Return the readings of a table again, exact, by the id of their item and by their metric.

    Args:
        table: Whole readings in order of `id` and `row`, as `TraceStore.readings` gives them.
    """
    found: dict[str, dict[str, StoredReading]] = {}
    group: list[dict[str, Any]] = []
    for row in [*table.to_pylist(), None]:
        if group and (row is None or row["facts"] is not None):
            reading = _rebuilt(group)
            found.setdefault(group[0]["id"], {})[reading.name] = reading
            group = []
        if row is not None:
            group.append(row)
    return found


def _rebuilt(rows: list[dict[str, Any]]) -> StoredReading:
    """Return the reading whose rows these are."""
    first = rows[0]
    facts = json.loads(first["facts"])
    axes, dtype = tuple(facts.pop("axes")), getattr(torch, facts.pop("dtype"))
    outer = [axis for axis in axes if axis in _OUTER]
    sizes = [len(dict.fromkeys(row[axis] for row in rows)) for axis in outer]
    values = torch.tensor([row["values"] for row in rows], dtype=torch.float64).to(dtype)
    stored = [*outer, *first["axes"]]
    values = values.reshape([*sizes, *first["shape"]])
    values = values.permute([stored.index(axis) for axis in axes])
    labels = {name: tuple(own) for name, own in facts.pop("coordinates").items()}
    places = {name: tuple(own) for name, own in facts.pop("positions").items()}
    return StoredReading(
        name=first["metric"],
        values=values,
        axes=axes,
        unit=first["unit"],
        stack=first["stack"],
        bounds=tuple(facts.pop("bounds")),
        coordinates=labels,
        positions=places,
        **facts,
    )


def _rows(reading: StoredReading) -> Iterator[dict[str, Any]]:
    outer = [axis for axis in reading.axes if axis in _OUTER]
    inner = [axis for axis in reading.axes if axis not in _OUTER]
    order = [reading.axes.index(axis) for axis in (*outer, *inner)]
    values = reading.values.detach().cpu().permute(order) if order else reading.values.cpu()
    facts = {name: _plain(getattr(reading, name)) for name in _FACTS}
    facts |= {"axes": list(reading.axes), "dtype": str(reading.values.dtype).removeprefix("torch.")}
    common = {
        "metric": reading.name,
        "unit": reading.unit,
        "stack": reading.stack,
        "axes": inner,
        "shape": list(values.shape[len(outer) :]),
    }
    labels = {axis: _numbers(reading, axis, values.shape[k]) for k, axis in enumerate(outer)}
    places = product(*(range(len(own)) for own in labels.values()))  # one of nothing: ()
    for number, at in enumerate(places):
        where = {axis: own[place] for (axis, own), place in zip(labels.items(), at, strict=True)}
        row = values[at].double().reshape(-1).numpy()
        yield common | where | {"values": row, "facts": None if number else json.dumps(facts)}


def _numbers(reading: StoredReading, axis: str, length: int) -> list[int]:
    """Return the numbers of the layers or heads of a reading."""
    known = reading.coordinates.get(axis)
    return list(range(length)) if known is None else [int(number) for number in known]


def _plain(fact: object) -> Any:
    if isinstance(fact, Mapping):
        return {str(name): _plain(value) for name, value in fact.items()}
    if isinstance(fact, tuple | list | range):
        return [_plain(value) for value in fact]
    if isinstance(fact, str | int | float | bool | type(None)):
        return fact
    return str(fact)
