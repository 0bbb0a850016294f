"""`Event` and `RunFacts`: one row of a store's index, and what a run says of itself there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from attnscope.traces.provenance import Provenance
from attnscope.traces.segments import TokenSequence
from attnscope.traces.store_log import new_id
from attnscope.traces.trace import Trace

__all__ = ["KINDS", "Event", "RunFacts", "event_schema", "event_table"]

KINDS = ("trace", "readings", "error", "tags", "deletion")
"""What an event can be: an item with its trace, an item with readings alone, one that failed; a
change of tags; a deletion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the index says of one run of a model.

    Attributes:
        model: Name of the model.
        revision: Its commit or checkpoint.
        dtype: Type that it computed in.
        gradient: What gradients are of; empty where none were taken.
        tokens: Length of the main sequence.
        segments: Positions of each name of segment.
        layers: Attention sites, of all stacks.
        heads: Heads of a site of the main stack.
    """

    model: str = ""
    revision: str = ""
    dtype: str = ""
    gradient: str = ""
    tokens: int = 0
    segments: Mapping[str, int] = field(default_factory=dict)
    layers: int = 0
    heads: int = 0

    @classmethod
    def of_run(
        cls, provenance: Provenance, sequence: TokenSequence | None, layers: int, heads: int
    ) -> "RunFacts":
        """Return the facts of a run whose main sequence, sites and heads are known."""
        segments = () if sequence is None else sequence.segments
        counts: dict[str, int] = {}
        for run in segments:
            counts[run.name] = counts.get(run.name, 0) + len(run.positions)
        return cls(
            model=provenance.model,
            revision=provenance.revision or "",
            dtype=provenance.dtype or "",
            gradient=provenance.gradient_target or "",
            tokens=0 if sequence is None else len(sequence),
            segments=counts,
            layers=layers,
            heads=heads,
        )

    @classmethod
    def of_trace(cls, trace: Trace) -> "RunFacts":
        """Return the facts of a trace, reading none of its tensors."""
        stack = trace.main_stack if trace.sites else ""
        own = (one.shape[0] for one in trace.observed.summaries if one.site.stack == stack)
        return cls.of_run(
            trace.provenance,
            trace.sequences[trace.main_sequence],
            len(trace.sites),
            next(own, 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the index: something that happened to an item of a store.

    Attributes:
        kind: One of `KINDS`.
        id: The trace, or the capture of readings, that it is about.
        item: What was captured: captured again it bears the same item, and counts once.
        name: What people call it.
        facts: What is known of the run.
        tags: Tags that it has from now on, beside others.
        removed_tags: Tags that it has no longer.
        metrics: Names of the metrics whose readings were kept.
        path: The trace's file within the store; empty where there is none.
        bytes: Its length.
        checksum: XXH3 of its content, 128 bits in hexadecimal digits.
        error: What went wrong.
        event: Name of this row.
        time: When it happened, by the writer's clock.
    """

    kind: str
    id: str
    item: str = ""
    name: str = ""
    facts: RunFacts = field(default_factory=RunFacts)
    tags: tuple[str, ...] = ()
    removed_tags: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    path: str = ""
    bytes: int = 0
    checksum: str = ""
    error: str = ""
    event: str = field(default_factory=new_id)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


def event_schema() -> Any:
    """Return the columns of the index, as a `pyarrow.Schema`."""
    import pyarrow as pa

    words, number, text = pa.list_(pa.string()), pa.int32(), pa.string()
    counts = pa.list_(pa.struct([("name", text), ("tokens", number)]))
    return pa.schema(
        [
            ("event", text),
            ("kind", text),
            ("id", text),
            ("item", text),
            ("name", text),
            ("time", pa.timestamp("us", tz="UTC")),
            ("model", text),
            ("revision", text),
            ("dtype", text),
            ("gradient", text),
            ("tokens", number),
            ("segments", counts),
            ("layers", number),
            ("heads", number),
            ("tags", words),
            ("removed_tags", words),
            ("metrics", words),
            ("path", text),
            ("bytes", pa.int64()),
            ("checksum", text),
            ("error", text),
        ]
    )


def event_table(events: list[Event]) -> Any:
    """Return events as a `pyarrow.Table`."""
    import pyarrow as pa

    return pa.Table.from_pylist([_row(event) for event in events], schema=event_schema())


def _row(event: Event) -> dict[str, Any]:
    row = asdict(event)
    facts = row.pop("facts")
    facts["segments"] = [
        {"name": name, "tokens": count} for name, count in facts["segments"].items()
    ]
    return row | facts
