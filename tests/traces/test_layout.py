"""The header is sealed by its digest and parsed only when the seal holds."""

import hashlib
import json

import pytest
import torch

from attnscope.traces import TraceError
from attnscope.traces.layout import Entry, arrange, seal, unseal

ENTRIES = {"a": Entry(torch.float32, (2, 3), 0), "b": Entry(torch.bool, (), 24)}


def reseal(sealed: bytes, old: bytes, new: bytes) -> bytes:
    """Return an edited header whose digest was computed anew."""
    text = sealed[8:].replace(old, new, 1).rstrip(b" ")
    digest = json.loads(sealed[8:])["__metadata__"]["sha256"].encode()
    text += b" " * (-(8 + len(text)) % 64)
    blank = len(text).to_bytes(8, "little") + text.replace(digest, b"0" * 64, 1)
    return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)


def test_what_is_sealed_comes_back():
    sealed = seal("what it says: ü\ud800" + "0" * 64, ENTRIES)
    assert unseal(sealed) == ("what it says: ü\ud800" + "0" * 64, ENTRIES)
    assert len(sealed) % 64 == 0


def test_large_items_come_first_so_that_all_are_aligned():
    tensors = {
        "flag": torch.ones(3, dtype=torch.bool),
        "half": torch.ones(3, dtype=torch.float16),
        "double": torch.ones(3, dtype=torch.float64),
    }
    entries = arrange(tensors)
    assert [(name, entry.start) for name, entry in entries.items()] == [
        ("double", 0),
        ("half", 24),
        ("flag", 30),
    ]


def test_an_edited_header_needs_a_new_digest():
    sealed = seal("x", ENTRIES)
    assert unseal(reseal(sealed, b'"trace":"x"', b'"trace":"y"'))[0] == "y"
    with pytest.raises(TraceError, match="does not fit its digest"):
        unseal(sealed.replace(b'"trace":"x"', b'"trace":"y"'))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b'"F32"', b'"Q32"', "tensor 'a' is of the unknown type 'Q32'"),
        (b'"F32"', b'["F32"]', "unknown type"),
        (b"[0,24]", b"[0,23]", r"shape \[2, 3\] takes 24 bytes, its place is \[0, 23\]"),
        (b"[0,24]", b"[0,-24]", "not a whole number"),
        (b"[0,24]", b"[2,26]", r"its place is \[2, 26\]"),
        (b"[0,24]", b"[0]", "neither shape nor place"),
        (b"[2,3]", b"[2,1e99]", "not a whole number"),
        (b"[2,3]", b"[true,6]", "not a whole number"),
        (b"[2,3]", b"{}", "neither shape nor place"),
        (b'"shape":[2,3],', b"", "cannot be understood"),
        (b'"trace":', b'"truce":', "cannot be understood"),
        (b'"b":{', b'"b":[{', "cannot be understood"),
    ],
)
def test_a_sealed_header_that_makes_no_sense_is_refused(old, new, fault):
    with pytest.raises(TraceError, match=fault):
        unseal(reseal(seal("x", ENTRIES), old, new))


def test_data_that_stands_askew_is_refused():
    sealed = seal("x", ENTRIES)
    digest = json.loads(sealed[8:])["__metadata__"]["sha256"].encode()
    text = sealed[8:].replace(digest, b"0" * 64, 1) + b" "
    blank = len(text).to_bytes(8, "little") + text
    askew = blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)
    with pytest.raises(TraceError, match="not at a multiple of 64"):
        unseal(askew)


@pytest.mark.parametrize(
    "tensor", [torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse()], ids=str
)
def test_tensors_that_the_format_does_not_have_are_refused(tensor):
    with pytest.raises(TraceError, match=r"tensor 'a' is torch.*a trace stores strided tensors of"):
        arrange({"a": tensor})


def test_a_header_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr("attnscope.traces.layout.HEADER_LIMIT", 1000)
    with pytest.raises(TraceError, match=r"the header takes 1,.* bytes, over the limit of 1,000"):
        seal("x" * 1000, {})
