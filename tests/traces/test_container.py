"""Files whose digest is right and whose content is not: nothing is allocated, mapped or guessed."""

import json
import sys

import pytest
import torch

from attnscope.traces import TraceError
from attnscope.traces.container import Container, checksum, pieces
from attnscope.traces.layout import Entry, arrange, seal

TYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def write(path, entries, checksums, data=b""):
    path.write_bytes(seal(json.dumps({"checksums": checksums}), entries) + data)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 2, 7)])
def test_tensors_of_every_type_come_back_bit_by_bit(path, shape):
    tensors = {str(dtype): (torch.randn(shape) * 50).to(dtype) for dtype in TYPES}
    entries = arrange(tensors)
    data = b"".join(raw(tensors[name]) for name in entries)
    sums = {name: [checksum(raw(tensor))] for name, tensor in tensors.items()}
    write(path, entries, sums, data)
    container = Container(path)
    for name, tensor in tensors.items():
        back = container.tensor(name)
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert raw(back) == raw(tensor)
        assert back.data_ptr() % tensor.element_size() == 0


def test_a_tensor_is_not_copied(path):
    write(path, {"a": Entry(torch.uint8, (3,), 0)}, {"a": [checksum(b"abc")]}, b"abc")
    container = Container(path)
    assert container.tensor("a").data_ptr() == container.tensor("a").data_ptr()


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files are not everywhere")
def test_one_slice_of_a_tensor_larger_than_memory_is_read_at_once(path):
    entry = Entry(torch.float32, (2**16, 2**10, 2**12), 0)  # one tebibyte of zeros
    sums = [checksum(bytes(2**24))] * 2**16
    write(path, {"a": entry}, {"a": sums})
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size + entry.nbytes)
    tensor = Container(path).tensor("a", [5, 2**16 - 1])
    assert tensor[2**16 - 1, 7, :3].tolist() == [0.0, 0.0, 0.0]


def test_a_tensor_larger_than_the_file_is_refused(path):
    entry = Entry(torch.float64, (2**40, 2**40), 0)
    write(path, {"a": entry}, {"a": ["0" * 16]})
    with pytest.raises(
        TraceError, match="is cut off: 0 of 9,671,406,556,917,033,397,649,408 bytes"
    ):
        Container(path)


@pytest.mark.parametrize("start", [0, 2, 8])
def test_tensors_that_overlap_or_leave_a_gap_are_refused(path, start):
    entries = {"a": Entry(torch.uint8, (4,), 0), "b": Entry(torch.uint8, (4,), start)}
    write(path, entries, {"a": ["0" * 16], "b": ["0" * 16]}, bytes(start + 4))
    with pytest.raises(TraceError, match=f"starts at byte {start} of the data, not 4"):
        Container(path)


@pytest.mark.parametrize("sums", [{}, {"a": ["0"], "b": ["0"]}, {"b": ["0"]}, [], None])
def test_tensors_and_checksums_have_to_be_the_same_set(path, sums):
    write(path, {"a": Entry(torch.uint8, (4,), 0)}, sums, bytes(4))
    with pytest.raises(TraceError, match="tensors without checksums, or checksums without"):
        Container(path)


@pytest.mark.parametrize("sums", ["0" * 16, [], ["0", "0"], 5])
def test_checksums_have_to_fit_the_shape(path, sums):
    write(path, {"a": Entry(torch.uint8, (4,), 0)}, {"a": sums}, bytes(4))
    with pytest.raises(TraceError, match="tensor 'a' has checksums that do not fit its shape"):
        Container(path)


@pytest.mark.parametrize("text", ["", "nothing", "[]", "[" * 100_000, "5", '"a"'])
def test_a_description_that_is_no_mapping_is_refused(path, text):
    path.write_bytes(seal(text, {}))
    with pytest.raises(TraceError, match="has a header that"):
        Container(path)


def test_a_header_that_claims_too_much_is_refused(path):
    path.write_bytes((200_000_000).to_bytes(8, "little"))
    with path.open("r+b") as stream:
        stream.truncate(300_000_000)
    with pytest.raises(TraceError, match="is not a trace: its header would take 200,000,000 bytes"):
        Container(path)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((4, 64, 16), 4),
        ((4, 4, 4), 1),  # slices too small to be worth it
        ((4, 4096), 1),  # two axes: no heads
        ((1, 64, 64), 1),
        ((10_000, 64, 64), 1),  # too many for a header
        ((0, 64, 64), 1),
    ],
)
def test_tensors_with_heads_have_one_checksum_per_head(shape, count):
    assert pieces(Entry(torch.float32, shape, 0)) == count
