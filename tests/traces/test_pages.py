"""Ranges are fetched when they are required, each byte once, in as few requests as can be."""

import hypothesis
import pytest
from hypothesis import strategies as st

from attnscope.traces import TraceError, open_trace
from attnscope.traces.container import Container
from attnscope.traces.pages import RangePages
from attnscope.traces.reader import trace_of

SIZE = 1 << 19
HEADER = 100


def content(size=SIZE, header=HEADER):
    body = bytes(range(256)) * (size // 256 + 1)
    return (header.to_bytes(8, "little") + body)[:size]


class Remote:
    def __init__(self, data):
        self.data, self.asked = data, []

    def __call__(self, start, stop):
        self.asked.append((start, stop))
        return self.data[start:stop]


@hypothesis.given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 5000)), max_size=8))
@hypothesis.settings(max_examples=30, deadline=None)
def test_every_byte_that_is_required_is_there_and_was_asked_for_once(ranges):
    data = content()
    remote = Remote(data)
    pages = RangePages("far", SIZE, remote)
    for start, length in ranges:
        stop = min(start + length, SIZE)
        pages.require(start, stop)
        assert pages.memory[start:stop] == data[start:stop]
    counts = bytearray(SIZE)
    for start, stop in remote.asked:
        assert start < stop
        counts[start:stop] = bytes(count + 1 for count in counts[start:stop])
    assert max(counts) == 1


def test_a_header_longer_than_the_first_request_takes_a_second():
    data = content(header=300_000)
    remote = Remote(data)
    assert RangePages("far", SIZE, remote).opening == data[: 300_000 + 8]
    assert len(remote.asked) == 2


def test_answers_that_are_too_short_are_refused():
    pages = RangePages("far", SIZE, lambda start, stop: content()[start : min(stop, 300_000)])
    with pytest.raises(TraceError, match="gave 0 bytes of 10 from 400,000"):
        pages.require(400_000, 400_010)


def test_a_head_is_one_request_per_factor(make_trace, tmp_path):
    path = tmp_path / "trace.safetensors"
    make_trace(length=1500).save(path)
    remote = Remote(path.read_bytes())
    far = trace_of(Container(RangePages("far", path.stat().st_size, remote)))
    near = open_trace(path)
    opening = len(remote.asked)
    head = far.attention.heads(1, [2])
    assert (head.query == near.attention.heads(1, [2]).query).all()
    fetched = remote.asked[opening:]
    assert len(fetched) <= 3  # query, key, log normalizer
    assert sum(stop - start for start, stop in fetched) < path.stat().st_size / 10


def test_damage_far_away_is_noticed(make_trace, tmp_path):
    path = tmp_path / "trace.safetensors"
    make_trace().save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    far = trace_of(Container(RangePages("far", len(data), Remote(bytes(data)))))
    with pytest.raises(TraceError, match="far: is damaged"):
        list(far.observed)
