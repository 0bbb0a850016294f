"""`Content`: what a trace file says of itself beside its tensors, as JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from attnscope.traces.errors import TraceError
from attnscope.traces.observations import SiteSummary
from attnscope.traces.provenance import Provenance
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
    """

    sequences: tuple[TokenSequence, ...]
    main_sequence: str
    provenance: Provenance
    vectors: Mapping[str, str]
    records: tuple[SiteRecord, ...]


def encode(content: Content, checksums: Mapping[str, list[str]]) -> str:
    """Return the JSON text of a file's content.

    Raises:
        TraceError: A fact is not plain: a number, text, list or mapping.
    """
    for record in content.records:
        _check_plain(record.facts, f"{record.summary.kind} of {record.summary.site.path}")
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
            main_sequence=_text(plain["main_sequence"]),
            provenance=_provenance(plain["provenance"]),
            vectors=_names(plain["vectors"]),
            records=tuple(_record(fields) for fields in plain["sites"]),
        )
    except TraceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"has a header that does not describe a trace ({error!r})") from error


_PROVENANCE_TEXTS = ("model", "revision", "dtype", "gradient_target")
_PLAIN = (str, int, float, bool, type(None))


def _check_plain(fact: object, where: str) -> None:
    if isinstance(fact, Mapping):
        if not all(isinstance(name, str) for name in fact):
            raise TraceError(f"{where}: fact {dict(fact)!r} has names that are not text")
        for name, value in fact.items():
            _check_plain(value, f"{where}: {name}")
    elif isinstance(fact, list | tuple):
        for value in fact:
            _check_plain(value, where)
    elif type(fact) not in _PLAIN:
        raise TraceError(
            f"{where}: {fact!r} is a {type(fact).__name__}; "
            "a trace stores facts that are numbers, text, lists or mappings of these"
        )


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
        name=_text(fields["name"]),
        tokens=tuple(_text(token) for token in fields["tokens"]),
        ids=None if ids is None else tuple(_whole(number) for number in ids),
        segments=Segments(tuple(_segment(run) for run in fields["segments"])),
        axis=_text(fields["axis"]),
    )


def _segment(fields: Mapping[str, Any]) -> Segment:
    grid = fields["grid"]
    if grid is not None:
        rows, columns = grid
        grid = (_whole(rows), _whole(columns))
    return Segment(
        name=_text(fields["name"]),
        start=_whole(fields["start"]),
        stop=_whole(fields["stop"]),
        grid=grid,
    )


def _provenance(fields: Mapping[str, Any]) -> Provenance:
    texts = {name: fields[name] for name in _PROVENANCE_TEXTS if fields[name] is not None}
    return Provenance(
        versions=_names(fields["versions"]),
        notes=_names(fields["notes"]),
        **_names(texts),
    )


def _record(fields: Mapping[str, Any]) -> SiteRecord:
    facts, summary = fields["facts"], fields["summary"]
    if not isinstance(facts, dict):
        raise TraceError(f"has facts of a site that are {facts!r}")
    heads, queries, keys = (_whole(size) for size in summary["shape"])
    query_axis, key_axis = (_text(axis) for axis in summary["axes"])
    offset = summary["offset"]
    return SiteRecord(
        summary=SiteSummary(
            site=_site(summary["site"]),
            kind=_text(summary["kind"]),
            shape=(heads, queries, keys),
            causal=bool(summary["causal"]),
            offset=None if offset is None else _whole(offset),
            axes=(query_axis, key_axis),
            has_gradient=bool(summary["has_gradient"]),
        ),
        facts=facts,
        parts=_names(fields["parts"]),
        fields=_names(fields["fields"]),
    )


def _site(fields: Mapping[str, Any]) -> Site:
    layer = _whole(fields["layer"])
    names = {name: _text(fields[name]) for name in ("stack", "path")}
    names |= {name: _text(fields[name]) for name in ("query_sequence", "key_sequence")}
    return Site(layer=layer, **names)


def _names(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in fields.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TraceError(f"has {value!r} where text should stand")
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TraceError(f"has {value!r} where a whole number should stand")
    return value
