"""The JSON of a trace file: only plain facts go in, only what fits comes out."""

import json
from dataclasses import replace

import pytest

from attnscope.traces import Provenance, Site, TokenSequence, TraceError
from attnscope.traces.content import Content, SiteRecord, decode, encode
from attnscope.traces.observations import SiteSummary

RECORD = SiteRecord(
    summary=SiteSummary(
        site=Site(stack="s", layer=0, path="s.0"),
        kind="DenseAttention",
        shape=(1, 2, 2),
        causal=True,
        offset=0,
        axes=("token", "token"),
        has_gradient=False,
    ),
    facts={"offset": 0, "scale": 0.1, "none": None, "nested": {"list": [1, [True, "x"]]}},
    parts={"pattern": "0.attention.pattern"},
    fields={},
)
CONTENT = Content(
    sequences=(TokenSequence(name="text", tokens=("a", "b")),),
    main_sequence="text",
    provenance=Provenance(model="m", versions={"torch": "2"}),
    vectors={},
    records=(RECORD,),
)


def test_content_comes_back():
    assert decode(json.loads(encode(CONTENT, {}))) == CONTENT


def test_numbers_come_back_exactly():
    facts = {"scale": 128**-0.5, "inf": float("inf"), "large": 2**80}
    content = replace(CONTENT, records=(replace(RECORD, facts=facts),))
    assert decode(json.loads(encode(content, {}))).records[0].facts == facts


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        (
            {"kind": object},
            "DenseAttention of s.0: kind: <class 'object'> is a type; a trace stores",
        ),
        ({"deep": [{"kind": {1, 2}}]}, "deep: kind: {1, 2} is a set"),
        ({"table": {1: 2}}, "table: fact {1: 2} has names that are not text"),
    ],
)
def test_facts_that_are_not_plain_are_refused(facts, fault):
    with pytest.raises(TraceError, match=fault):
        encode(replace(CONTENT, records=(replace(RECORD, facts=facts),)), {})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["sequences"], None),
        (["sequences", 0, "tokens"], [1, 2]),
        (["sequences", 0, "ids"], [1.5, 2]),
        (["sequences", 0, "ids"], [1]),
        (["sequences", 0, "segments"], [{"name": "x", "start": 0, "stop": 9, "grid": None}]),
        (["sequences", 0, "segments"], [{"name": "x", "start": 0, "stop": 2, "grid": [1]}]),
        (["main_sequence"], 5),
        (["provenance"], []),
        (["provenance", "notes"], {"a": 1}),
        (["sites", 0, "facts"], []),
        (["sites", 0, "parts"], {"pattern": 3}),
        (["sites", 0, "summary", "shape"], [1, 2]),
        (["sites", 0, "summary", "shape"], [1, 2, True]),
        (["sites", 0, "summary", "axes"], ["token", 1]),
        (["sites", 0, "summary", "offset"], "end"),
        (["sites", 0, "summary", "site"], {"layer": 1}),
        (["vectors"], ["a"]),
    ],
)
def test_fields_of_another_kind_are_refused(path, value):
    plain = json.loads(encode(CONTENT, {}))
    *parents, last = path
    inner = plain
    for step in parents:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(TraceError):
        decode(plain)


def test_a_missing_field_is_named():
    plain = json.loads(encode(CONTENT, {}))
    del plain["sites"]
    with pytest.raises(TraceError, match=r"does not describe a trace \(KeyError\('sites'\)\)"):
        decode(plain)
