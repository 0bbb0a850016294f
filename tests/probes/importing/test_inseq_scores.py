"""Attention that inseq saved."""

import base64
import gzip
import json

import pytest
import torch
from safetensors.torch import save

from attnscope.attention import DenseAttention
from attnscope.probes import CaptureError
from attnscope.probes.importing import from_inseq

LAYERS, HEADS = 2, 3


def rows():
    """Return weights `(text, step, layer, head)` of two tokens after a prompt of two."""
    weights = torch.full((4, 2, LAYERS, HEADS), torch.nan)
    weights[:2, 0] = torch.tensor([0.25, 0.75])[:, None, None]
    weights[:3, 1] = torch.tensor([0.5, 0.0, 0.5])[:, None, None]
    return weights


def wrapped(name, fields):
    return {"__instance_type__": ["inseq.data.attribution", name], "attributes": fields}


def document(weights, **changes):
    tokens = [wrapped("TokenWithId", {"token": word, "id": 1}) for word in "abcd"]
    sequence = {
        "source": tokens[:2],
        "target": tokens,
        "source_attributions": None,
        "target_attributions": weights,
        "attr_pos_start": 2,
        "attr_pos_end": 4,
    }
    info = {"attribution_method": "attention", "model_name": "gpt2"}
    one = wrapped("FeatureAttributionSequenceOutput", sequence | changes.pop("sequence", {}))
    fields = {"sequence_attributions": [one], "info": info} | changes
    return wrapped("FeatureAttributionOutput", fields)


def lists(weights):
    return {"__ndarray__": weights.tolist(), "dtype": "float32", "shape": list(weights.shape)}


def text(weights):
    return base64.b64encode(save({"attribution": weights.contiguous()})).decode()


@pytest.mark.parametrize("form", [lists, text, lambda weights: weights.tolist()])
@pytest.mark.parametrize("compressed", [True, False])
def test_rows_of_generated_tokens_stand_where_they_were_computed(tmp_path, form, compressed):
    raw = json.dumps(document(form(rows()))).encode()
    path = tmp_path / "attention.json"
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    trace = from_inseq(path)
    attention = trace.attention["target", 1]
    assert isinstance(attention, DenseAttention)
    assert attention.shape == (HEADS, 2, 4)
    assert attention.dense()[0].tolist() == [[0.25, 0.75, 0, 0], [0.5, 0, 0.5, 0]]
    assert (attention.offset, attention.causal, attention.stochastic) == (1, True, True)
    assert trace.sequences["generation"].tokens == ("c", "d")
    assert trace.tokens == tuple("abcd")
    assert trace.provenance.model == "gpt2"


def test_what_an_encoder_was_read_of_is_a_stack_of_its_own(tmp_path):
    source = torch.full((2, 2, LAYERS, HEADS), 0.5)
    path = tmp_path / "both.json"
    both = document(lists(rows()), sequence={"source_attributions": lists(source)})
    path.write_text(json.dumps(both))
    trace = from_inseq(path)
    assert trace.stacks == ("target", "source")
    assert trace.attention["source", 0].key_axis == "memory"
    assert trace.sequences["encoder"].tokens == ("a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no sequence_attributions"),
        (document(lists(rows()), info={"attribution_method": "saliency"}), "by 'saliency'"),
        (document(lists(rows()[..., 0, 0])), r"shape \(4, 2\); maps need \(4, 2\)"),
        (document(None), "neither target_attributions nor source_attributions"),
        (document("no base64!"), "text that is no safetensors"),
        (
            document(base64.b64encode(save({"a": torch.ones(2).to(torch.uint8)})).decode()),
            "are stored in 8 bits",
        ),
        (document(lists(rows() * 9)), "those of a map to 1"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path, content, message):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CaptureError, match=message):
        from_inseq(path)


def test_files_that_are_no_json_and_items_that_do_not_exist_are_refused(tmp_path):
    path = tmp_path / "attention.json"
    with pytest.raises(CaptureError, match="cannot be read as JSON"):
        from_inseq(path)
    path.write_text(json.dumps(document(lists(rows()))))
    with pytest.raises(CaptureError, match="no sequence 3"):
        from_inseq(path, 3)
