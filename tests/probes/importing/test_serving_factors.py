"""Queries and keys that vLLM-Hook wrote."""

import json

import pytest
import torch
from safetensors.torch import save_file

from attnscope.attention import SoftmaxAttention
from attnscope.probes import CaptureError
from attnscope.probes.importing import from_vllm_hook

CONFIG = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 16,
    "head_dim": 4,
    "attention_multiplier": 0.5,
}
QUERY, KEY = torch.randn(2, 6, 16), torch.randn(2, 6, 8)


def write(folder, query=QUERY, key=KEY, mode="all_tokens", **facts):
    stem = "model__layers__3__self_attn__attn__"
    tensors = {f"{stem}q": query.contiguous(), f"{stem}k": key.contiguous()}
    save_file(tensors, folder / "qk.safetensors")
    item = {
        "key_q": f"{stem}q",
        "key_k": f"{stem}k",
        "module_name": "model.layers.3.self_attn.attn",
        "layer_num": 3,
        "hookq_mode": mode,
    }
    meta = {"config": CONFIG, "layer_order": [item], "batch_size": 2, "seq_lens": [6, 4]} | facts
    (folder / "qk.json").write_text(json.dumps(meta))
    return folder


def test_a_request_is_the_softmax_of_its_own_tokens(tmp_path):
    trace = from_vllm_hook(write(tmp_path), 1, list("abcd"))
    attention = trace.attention[3]
    assert isinstance(attention, SoftmaxAttention)
    query = QUERY[1, :4].unflatten(-1, (4, 4)).transpose(0, 1)
    key = KEY[1, :4].unflatten(-1, (2, 4)).transpose(0, 1).repeat_interleave(2, 0)
    hidden = torch.ones(4, 4).triu(1).bool()
    expected = (query @ key.mT * 0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    torch.testing.assert_close(attention.dense(), expected)
    assert "windows, soft-caps and sinks" in trace.provenance.notes["assumed"]
    assert trace.tokens == tuple("abcd")


def test_a_last_query_stands_at_the_last_key(tmp_path):
    trace = from_vllm_hook(write(tmp_path, QUERY[:, 0], mode="last_token"))
    attention = trace.attention["attention", 3]
    assert attention.shape == (4, 1, 6)
    assert attention.offset == 5
    assert float(attention.dense()[..., 5].min()) > 0
    assert len(trace.sequences["last queries"]) == 1


def test_pickles_and_missing_files_are_refused(tmp_path):
    with pytest.raises(CaptureError, match=r"holds no qk\.safetensors with its qk\.json$"):
        from_vllm_hook(tmp_path)
    (tmp_path / "qk.pt").write_bytes(b"\x80")
    with pytest.raises(CaptureError, match=r"its qk\.pt is a pickle, which is never opened"):
        from_vllm_hook(tmp_path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"compact_all_tokens": True}, "tells of the compact layout"),
        ({"config": CONFIG | {"num_attention_heads": 5}}, "are not 5 and 2 heads"),
        ({"config": CONFIG | {"num_attention_heads": 8}}, "heads of one width"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, facts, message):
    with pytest.raises(CaptureError, match=message):
        from_vllm_hook(write(tmp_path, **facts))


def test_requests_and_tokens_that_do_not_exist_are_refused(tmp_path):
    folder = write(tmp_path)
    with pytest.raises(CaptureError, match="no request 2; the file holds 2"):
        from_vllm_hook(folder, 2)
    with pytest.raises(CaptureError, match="1 text tokens were given for 6 positions"):
        from_vllm_hook(folder, 0, ["a"])
    (folder / "qk.json").write_text("[")
    with pytest.raises(CaptureError, match="is no JSON of vLLM-Hook"):
        from_vllm_hook(folder)
    write(folder)
    (folder / "qk.safetensors").write_bytes(b"no")
    with pytest.raises(CaptureError, match="is not a safetensors file"):
        from_vllm_hook(folder)
