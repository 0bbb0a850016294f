"""What the events of a store add up to: the items that it holds, and those that failed."""

from typing import Any

from attnscope.traces.store_arrow import compute, places

__all__ = ["deleted_ids", "failures", "held", "superseded"]

_INDEX = [
    "id",
    "item",
    "name",
    "time",
    "kind",
    "model",
    "revision",
    "dtype",
    "gradient",
    "tokens",
    "segments",
    "layers",
    "heads",
    "tags",
    "metrics",
    "path",
    "bytes",
    "checksum",
]
_FAILURE = ["item", "name", "time", "error", "tags"]


def held(events: Any) -> Any:
    """Return the items that a store holds, in the order in which they came.

    A capture counts until it is deleted; of several captures of one item the earliest counts. Tags
    are those that it came with and those that were added and not removed since.

    Args:
        events: The whole index, a `pyarrow.Table`.
    """
    captures, first = _captures(events)
    found = captures.take(first)
    return _retagged(found, events).select(_INDEX)


def superseded(events: Any) -> Any:
    """Return the captures of items of which an earlier capture is held, in order of time."""
    import numpy

    captures, first = _captures(events)
    others = numpy.setdiff1d(numpy.arange(captures.num_rows), numpy.asarray(first))
    return captures.take(others).select(_INDEX)


def failures(events: Any) -> Any:
    """Return the items that failed and are not held, each with its last error, in order of time."""
    pc = compute()
    errors = events.filter(pc.equal(events["kind"], "error")).sort_by(
        [("time", "descending"), ("event", "descending")]
    )
    errors = errors.filter(pc.invert(pc.is_in(errors["item"], value_set=held(events)["item"])))
    return errors.take(_firsts(errors)).sort_by([("time", "ascending")]).select(_FAILURE)


def deleted_ids(events: Any) -> Any:
    """Return the ids of the captures that were deleted, a `pyarrow.ChunkedArray`."""
    pc = compute()
    return events.filter(pc.equal(events["kind"], "deletion"))["id"]


def _captures(events: Any) -> tuple[Any, Any]:
    """Return the captures that were not deleted by time, and the places of each item's first."""
    import pyarrow as pa

    pc = compute()
    found = events.filter(pc.is_in(events["kind"], value_set=pa.array(["trace", "readings"])))
    found = found.filter(pc.invert(pc.is_in(found["id"], value_set=deleted_ids(events))))
    found = found.sort_by([("time", "ascending"), ("event", "ascending")])
    return found, _firsts(found)


def _firsts(table: Any) -> Any:
    """Return the place of the first row of each item, in ascending order."""
    import numpy
    import pyarrow as pa

    numbered = table.select(["item"]).append_column("place", places(table.num_rows))
    found = numbered.group_by("item", use_threads=False).aggregate([("place", "min")])
    return pa.array(numpy.sort(found["place_min"].to_numpy()))


def _retagged(found: Any, events: Any) -> Any:
    """Return captures with the changes of their tags applied, in order of time."""
    import pyarrow as pa

    pc = compute()
    changes = events.filter(pc.equal(events["kind"], "tags"))
    if not changes.num_rows:
        return found
    changes = changes.select(["id", "time", "event", "tags", "removed_tags"])
    changes = changes.sort_by([("time", "ascending"), ("event", "ascending")])
    rows = {name: row for row, name in enumerate(found["id"].to_pylist())}
    tags = found["tags"].to_pylist()
    for change in changes.to_pylist():
        if change["id"] in rows:
            own = tags[rows[change["id"]]] or []
            kept = [tag for tag in own if tag not in change["removed_tags"]]
            tags[rows[change["id"]]] = list(dict.fromkeys([*kept, *change["tags"]]))
    column = pa.array(tags, type=pa.list_(pa.string()))
    return found.set_column(found.column_names.index("tags"), "tags", column)
