"""`Content`: what a trace file says of itself beside its tensors, as JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from attnscope.traces.card import Card
from attnscope.traces.card_content import card_from, plain_card
from attnscope.traces.errors import TraceError
from attnscope.traces.observations import SiteSummary
from attnscope.traces.plain_facts import as_names, as_text, as_whole, check_plain
from attnscope.traces.provenance import Provenance
from attnscope.traces.reading_content import ReadingRecord, plain_reading, reading_record
from attnscope.traces.segments import Segment, Segments, TokenSequence
from attnscope.traces.site import Site

__all__ = ["Content", "SiteRecord", "decode", "encode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecord:
    """How one observation is stored.

    Attributes:
        summary: What is known before a tensor is read.
        facts: Plain facts of the operator.
        parts: Names in the file of the operator's tensors, by their names in the operator.
        fields: Names in the file of `value`, `gradient` and `hidden`, as far as there are any.
    """

    summary: SiteSummary
    facts: Mapping[str, Any]
    parts: Mapping[str, str]
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a trace file says of itself.

    Attributes:
        sequences: The sequences of positions, in order.
        main_sequence: Name of the one that the model speaks or reads.
        provenance: Where the numbers come from.
        vectors: Names in the file of `log_probabilities` and `entropies`, as far as there are any.
        records: The sites, in order of execution.
        readings: What is kept of metrics; their values stand in the file under the names given.
        card: What the numbers are.
    """

    sequences: tuple[TokenSequence, ...]
    main_sequence: str
    provenance: Provenance
    vectors: Mapping[str, str] = field(default_factory=dict)
    records: tuple[SiteRecord, ...] = ()
    readings: tuple[ReadingRecord, ...] = ()
    card: Card = field(default_factory=Card)


def encode(content: Content, checksums: Mapping[str, list[str]]) -> str:
    """Return the JSON text of a file's content.

    Raises:
        TraceError: A fact is not plain: a number, text, list or mapping.
    """
    for record in content.records:
        check_plain(record.facts, f"{record.summary.kind} of {record.summary.site.path}")
    provenance = content.provenance
    plain = {
        "provenance": {name: getattr(provenance, name) for name in _PROVENANCE_TEXTS}
        | {"versions": dict(provenance.versions), "notes": dict(provenance.notes)},
        "main_sequence": content.main_sequence,
        "sequences": [_plain_sequence(sequence) for sequence in content.sequences],
        "vectors": dict(content.vectors),
        "sites": [
            {
                "summary": asdict(record.summary),
                "facts": dict(record.facts),
                "parts": dict(record.parts),
                "fields": dict(record.fields),
            }
            for record in content.records
        ],
        "readings": [plain_reading(record) for record in content.readings],
        "card": plain_card(content.card),
        "checksums": dict(checksums),
    }
    return json.dumps(plain, separators=(",", ":"))


def decode(plain: Mapping[str, Any]) -> Content:
    """Return the content that `encode` wrote.

    Raises:
        TraceError: A field is missing or of another kind.
    """
    try:
        return Content(
            sequences=tuple(_sequence(fields) for fields in plain["sequences"]),
            main_sequence=as_text(plain["main_sequence"]),
            provenance=_provenance(plain["provenance"]),
            vectors=as_names(plain["vectors"]),
            records=tuple(_record(fields) for fields in plain["sites"]),
            # Files of before there were readings and cards have neither.
            readings=tuple(reading_record(fields) for fields in plain.get("readings", ())),
            card=card_from(plain["card"]) if "card" in plain else Card(),
        )
    except TraceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"has a header that does not describe a trace ({error!r})") from error


_PROVENANCE_TEXTS = ("model", "revision", "dtype", "gradient_target", "weights")


def _plain_sequence(sequence: TokenSequence) -> dict[str, Any]:
    return {
        "name": sequence.name,
        "axis": sequence.axis,
        "tokens": sequence.tokens,
        "ids": sequence.ids,
        "segments": [asdict(run) for run in sequence.segments],
    }


def _sequence(fields: Mapping[str, Any]) -> TokenSequence:
    ids = fields["ids"]
    return TokenSequence(
        name=as_text(fields["name"]),
        tokens=tuple(as_text(token) for token in fields["tokens"]),
        ids=None if ids is None else tuple(as_whole(number) for number in ids),
        segments=Segments(tuple(_segment(run) for run in fields["segments"])),
        axis=as_text(fields["axis"]),
    )


def _segment(fields: Mapping[str, Any]) -> Segment:
    grid = fields["grid"]
    if grid is not None:
        rows, columns = grid
        grid = (as_whole(rows), as_whole(columns))
    return Segment(
        name=as_text(fields["name"]),
        start=as_whole(fields["start"]),
        stop=as_whole(fields["stop"]),
        grid=grid,
    )


def _provenance(fields: Mapping[str, Any]) -> Provenance:
    known = {"weights": None, **fields}  # files of before there were fingerprints
    texts = {name: known[name] for name in _PROVENANCE_TEXTS if known[name] is not None}
    return Provenance(
        versions=as_names(fields["versions"]),
        notes=as_names(fields["notes"]),
        **as_names(texts),
    )


def _record(fields: Mapping[str, Any]) -> SiteRecord:
    facts, summary = fields["facts"], fields["summary"]
    if not isinstance(facts, dict):
        raise TraceError(f"has facts of a site that are {facts!r}")
    heads, queries, keys = (as_whole(size) for size in summary["shape"])
    query_axis, key_axis = (as_text(axis) for axis in summary["axes"])
    offset = summary["offset"]
    return SiteRecord(
        summary=SiteSummary(
            site=_site(summary["site"]),
            kind=as_text(summary["kind"]),
            shape=(heads, queries, keys),
            causal=bool(summary["causal"]),
            offset=None if offset is None else as_whole(offset),
            axes=(query_axis, key_axis),
            has_gradient=bool(summary["has_gradient"]),
        ),
        facts=facts,
        parts=as_names(fields["parts"]),
        fields=as_names(fields["fields"]),
    )


def _site(fields: Mapping[str, Any]) -> Site:
    layer = as_whole(fields["layer"])
    names = {name: as_text(fields[name]) for name in ("stack", "path")}
    names |= {name: as_text(fields[name]) for name in ("query_sequence", "key_sequence")}
    return Site(layer=layer, **names)
