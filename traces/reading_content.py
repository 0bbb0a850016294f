"""What a trace file says of the readings that it keeps, as JSON and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attnscope.traces.errors import TraceError
from attnscope.traces.plain_facts import as_number, as_text, as_whole, check_plain
from attnscope.traces.stored_reading import StoredReading

__all__ = ["ReadingRecord", "plain_reading", "reading_from", "reading_record", "record_of"]

_TEXTS = ("name", "unit", "paper", "title", "stack")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingRecord:
    """How one reading is stored.

    Attributes:
        key: Under which name the trace keeps it.
        facts: Its fields but the values.
        values: Name in the file of its values.
    """

    key: str
    facts: Mapping[str, Any]
    values: str


def record_of(key: str, reading: StoredReading, values: str) -> ReadingRecord:
    """Return how a reading is stored whose values have a name in the file."""
    facts = {name: fact for name, fact in reading.facts() if name != "values"}
    return ReadingRecord(key=key, facts=facts, values=values)


def plain_reading(record: ReadingRecord) -> dict[str, Any]:
    """Return a record as plain facts.

    Raises:
        TraceError: An option or a coordinate is not plain.
    """
    plain = {
        name: dict(fact) if isinstance(fact, Mapping) else fact
        for name, fact in record.facts.items()
    }
    check_plain(plain, f"reading {record.facts['name']!r}")
    return {**plain, "key": record.key, "values": record.values}


def reading_record(fields: Mapping[str, Any]) -> ReadingRecord:
    """Return the record that `plain_reading` wrote.

    Raises:
        TraceError: A field is of another kind.
    """
    low, high = (as_number(bound) for bound in fields["bounds"])
    if not isinstance(fields["options"], dict):
        raise TraceError(f"has options of a reading that are {fields['options']!r}")
    positions = {
        as_text(axis): tuple(as_whole(place) for place in places)
        for axis, places in fields["positions"].items()
    }
    facts: dict[str, Any] = {
        "axes": tuple(as_text(axis) for axis in fields["axes"]),
        "bounds": (low, high),
        "coordinates": {axis: tuple(labels) for axis, labels in fields["coordinates"].items()},
        "positions": positions,
        "options": fields["options"],
    }
    facts |= {name: as_text(fields[name]) for name in _TEXTS}
    return ReadingRecord(key=as_text(fields["key"]), facts=facts, values=as_text(fields["values"]))


def reading_from(record: ReadingRecord, values: Tensor) -> StoredReading:
    """Return the reading that a record and its values describe."""
    return StoredReading(values=values, **record.facts)
