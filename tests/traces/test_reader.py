"""Opening reads the header; damage, whatever it is, is a `TraceError` before a number is used."""

import os
import random
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from attnscope.attention import DenseAttention
from attnscope.traces import TraceError, open_trace

BITS = st.integers(0, 7)


def read_all(path) -> list[torch.Tensor]:
    """Return every tensor of every site."""
    trace = open_trace(path)
    tensors = [trace.log_probabilities, trace.entropies]
    for seen in trace.observations:
        tensors += [*seen.attention.parts()[0].values(), seen.value, seen.gradient, seen.hidden]
    return [tensor for tensor in tensors if tensor is not None]


@pytest.fixture(scope="module")
def small(make_trace, tmp_path_factory):
    """The smallest file that holds something of everything."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    make_trace(layers=1, length=4).save(path)
    return path


# --- what is read, and when ---------------------------------------------------------------------


def test_opening_reads_no_factor(stored, place_of, flip):
    for name in ("query", "key", "log_normalizer"):
        flip(stored, place_of(stored, f"0.attention.{name}")[0])
    trace = open_trace(stored)
    assert [site.layer for site in trace.sites] == [0, 1]
    assert trace.nbytes > 100_000
    assert "2 attention sites" in repr(trace)
    assert 0 in trace.attention
    assert ("model.layers.self_attn", 0) in list(trace.attention)


def test_a_layer_reads_its_own_factors_only(stored, place_of, flip):
    expected = open_trace(stored).attention[0].dense()
    flip(stored, place_of(stored, "1.attention.key")[0])
    trace = open_trace(stored)
    assert trace.attention[0].dense().equal(expected)
    with pytest.raises(TraceError, match=r"tensor '1\.attention\.key', slice 0 does not fit its"):
        _ = trace.attention[1]


def test_attention_reads_neither_values_nor_hidden_states(stored, place_of, flip):
    for name in ("value", "gradient", "hidden"):
        flip(stored, place_of(stored, f"1.{name}")[0])
    trace = open_trace(stored)
    assert trace.attention[1].heads == 4
    with pytest.raises(TraceError, match=r"1\.(value|gradient|hidden)"):
        _ = trace.observations[1]
    with pytest.raises(TraceError, match=r"1\.(value|gradient)"):
        _ = trace.gradient[1]


def test_a_head_reads_its_own_factors_only(stored, place_of, flip):
    expected = open_trace(stored).attention[0].dense()
    flip(stored, place_of(stored, "0.attention.query")[1] - 1)  # head 3
    trace = open_trace(stored)
    assert trace.attention.heads(0, [2, 0]).dense().equal(expected[[2, 0]])
    with pytest.raises(TraceError, match=r"'0\.attention\.query', slice 3 does not fit"):
        trace.attention.heads(0, 3)
    with pytest.raises(TraceError, match=r"'0\.attention\.query', slice 3 does not fit"):
        _ = trace.attention[0]


def test_a_head_reads_the_keys_and_values_of_its_group(stored, place_of, flip):
    expected = open_trace(stored).gradient[0].dense()
    flip(stored, place_of(stored, "0.attention.key")[1] - 1)  # heads 2 and 3
    flip(stored, place_of(stored, "0.value")[0])  # heads 0 and 1
    trace = open_trace(stored)
    assert trace.attention.heads(0, [0, 1]).heads == 2
    assert trace.gradient.heads(0, [3]).dense().equal(expected[[3]])
    with pytest.raises(TraceError, match=r"'0\.attention\.key', slice 1"):
        trace.attention.heads(0, 2)
    with pytest.raises(TraceError, match=r"'0\.value', slice 0"):
        trace.gradient.heads(0, 1)


def test_heads_of_a_stored_trace_are_those_of_the_whole(make_trace, build, tmp_path):
    make_trace(build).save(tmp_path / "trace.safetensors")
    heads = open_trace(tmp_path / "trace.safetensors").attention.heads(0, [3, 1])
    whole = open_trace(tmp_path / "trace.safetensors").attention[0]
    torch.testing.assert_close(heads.dense(), whole.dense()[[3, 1]])


def test_an_operator_is_built_once(stored):
    trace = open_trace(stored)
    assert trace.attention[0] is trace.attention[0]
    assert trace.observations[0].attention is trace.attention[0]


def test_writing_into_a_tensor_does_not_reach_the_file(stored):
    before = stored.read_bytes()
    open_trace(stored).attention[0].parts()[0]["query"].zero_()
    assert stored.read_bytes() == before


def test_tensors_outlive_the_trace(stored):
    query = open_trace(stored).attention[0].parts()[0]["query"]
    assert query.equal(open_trace(stored).attention[0].parts()[0]["query"])


# --- damage -------------------------------------------------------------------------------------


def test_any_turned_bit_is_noticed(small, tmp_path):
    content = small.read_bytes()
    path = tmp_path / "damaged.safetensors"

    @settings(max_examples=300, deadline=None)
    @given(position=st.integers(0, len(content) - 1), bit=BITS)
    def check(position: int, bit: int) -> None:
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(TraceError, match=r"damaged\.safetensors: "):
            read_all(path)

    check()


@pytest.mark.parametrize("position", range(8))
def test_any_turned_bit_of_the_header_length_is_noticed(small, tmp_path, position, flip):
    path = tmp_path / "damaged.safetensors"
    for bit in range(8):
        path.write_bytes(small.read_bytes())
        flip(path, position, bit)
        with pytest.raises(TraceError, match=r"damaged\.safetensors: (is not a trace|is damaged)"):
            open_trace(path)


def test_a_file_that_is_cut_off_is_refused_when_it_is_opened(small, tmp_path):
    content = small.read_bytes()
    path = tmp_path / "cut.safetensors"
    lengths = {*range(0, len(content), 97), *range(12), len(content) - 1}
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(TraceError, match=r"cut\.safetensors: .*cut off"):
            open_trace(path)


def test_bytes_behind_the_end_are_refused(small, tmp_path):
    path = tmp_path / "long.safetensors"
    path.write_bytes(small.read_bytes() + b"\0")
    with pytest.raises(TraceError, match="has 1 bytes behind its last tensor"):
        open_trace(path)


def test_a_file_that_is_cut_while_open_is_noticed(stored):
    trace = open_trace(stored)
    os.truncate(stored, 4096)
    with pytest.raises(TraceError, match="changed its length while it was open"):
        _ = trace.attention[1]


def test_damage_is_found_again_on_every_try(stored, place_of, flip):
    flip(stored, place_of(stored, "0.hidden")[0])
    trace = open_trace(stored)
    for _ in range(2):
        with pytest.raises(TraceError, match=r"tensor '0\.hidden' does not fit its checksum"):
            _ = trace.observations[0]


@pytest.mark.parametrize(
    ("honest", "forged"),
    [
        (b'\\"scale\\":0.25', b'\\"scale\\":0.26'),
        (b'"1.attention.query":', b'"0.attention.query":'),
        (b"model.layers.0", b"model.layers.7"),
        (b'\\"layer\\":1', b'\\"layer\\":2'),
        (b"text5", b"text6"),
        (b'"dtype":"F32"', b'"dtype":"I32"'),
        (b"[4,64,16]", b"[4,16,64]"),
    ],
)
def test_an_edited_header_is_refused(stored, honest, forged):
    content = stored.read_bytes()
    assert honest in content
    stored.write_bytes(content.replace(honest, forged, 1))
    with pytest.raises(TraceError, match="is damaged: the header does not fit its digest"):
        open_trace(stored)


def test_swapped_places_of_tensors_are_refused(stored, place_of):
    content = stored.read_bytes()
    first, second = (b'"0.attention.query":', b'"1.attention.query":')
    swapped = content.replace(first, b"_" * 20).replace(second, first).replace(b"_" * 20, second)
    stored.write_bytes(swapped)
    with pytest.raises(TraceError, match="does not fit its digest"):
        open_trace(stored)


# --- other files --------------------------------------------------------------------------------


def test_there_may_be_no_file(tmp_path):
    with pytest.raises(TraceError, match=r"none\.safetensors: there is no such file") as caught:
        open_trace(tmp_path / "none.safetensors")
    assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_is_no_trace(tmp_path):
    with pytest.raises(TraceError, match="is not a file"):
        open_trace(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="is not a file"):
        open_trace(tmp_path / "pipe")


def test_an_unreadable_file_is_named(stored, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(stored), "open", refuse)
    with pytest.raises(TraceError, match=r"stored\.safetensors: Permission denied"):
        open_trace(stored)


def test_an_empty_file_is_no_trace(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(TraceError, match="is not a trace, or cut off: it ends after 0 bytes"):
        open_trace(tmp_path / "empty")


def test_a_model_is_no_trace(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(TraceError, match="is a safetensors file, but not a trace"):
        open_trace(tmp_path / "model.safetensors")


def test_an_archive_is_no_trace(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("weights", b"0" * 1000)
    with pytest.raises(TraceError, match="is not a trace"):
        open_trace(tmp_path / "archive.zip")


def test_random_bytes_are_no_trace(tmp_path):
    for seed in range(20):
        content = random.Random(seed).randbytes(3000)  # noqa: S311 - noise, not a secret
        for opening in (b"", (2000).to_bytes(8, "little"), (2000).to_bytes(8, "little") + b"{"):
            (tmp_path / "noise").write_bytes(opening + content)
            with pytest.raises(TraceError, match=r"is not a trace|is a safetensors file, but"):
                open_trace(tmp_path / "noise")


def test_a_newer_version_is_named(stored):
    content = stored.read_bytes()
    stored.write_bytes(content.replace(b'"version":"1"', b'"version":"2"', 1))
    with pytest.raises(TraceError, match="has version 2 of the format; this attnscope reads up to"):
        open_trace(stored)


def test_an_older_version_is_read(stored, monkeypatch):
    monkeypatch.setattr("attnscope.traces.layout.VERSION", 7)
    assert isinstance(open_trace(stored).attention[0].dense(), torch.Tensor)


def test_a_stored_kind_that_is_no_longer_known_is_named(stored, monkeypatch):
    monkeypatch.setattr("attnscope.traces.stored.OPERATORS", {"DenseAttention": DenseAttention})
    with pytest.raises(TraceError, match="holds a SoftmaxAttention, which this attnscope does not"):
        open_trace(stored)
