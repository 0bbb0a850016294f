"""Maps that transformers returned and bertviz draws."""

import pytest
import torch

from attnscope import capture, measure
from attnscope.probes import CaptureError, Subject
from attnscope.probes.importing import from_attentions, from_bertviz


@pytest.fixture
def returned(model, tokens):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(tokens, output_attentions=True)
    model.set_attn_implementation("sdpa")
    return output.attentions


def test_returned_maps_are_measured_as_a_capture_is(model, tokens, returned, tmp_path):
    words = [f"w{number}" for number in range(17)]
    trace = from_attentions(returned, words, model="tiny")
    captured = capture(Subject(model), {"input_ids": tokens})
    for name in ("waad", "entropy", "head_span"):
        torch.testing.assert_close(
            measure(trace, name).values, measure(captured, name).values, atol=1e-4, rtol=1e-4
        )
    assert trace.tokens == tuple(words)
    assert trace.attention[2].causal
    assert trace.provenance.model == "tiny"
    assert trace.provenance.notes["kept as"] == "dense maps"
    trace.save(tmp_path / "maps.safetensors")


def uniform(queries, keys, heads=2):
    return torch.full((1, heads, queries, keys), 1 / keys)


def test_encoder_decoders_have_three_stacks():
    trace = from_attentions(
        [uniform(3, 3)],
        ["a", "b", "c"],
        encoder_attentions=[uniform(4, 4)] * 2,
        cross_attentions=[uniform(3, 4)],
        encoder_tokens=["v", "w", "x", "y"],
    )
    assert trace.stacks == ("encoder", "decoder", "cross")
    assert trace.main_sequence == "decoder"
    assert trace.attention["cross", 0].key_axis == "memory"
    assert trace.attention["encoder", 1].shape == (2, 4, 4)


def test_what_bertviz_draws_goes_by_its_own_names():
    trace = from_bertviz([uniform(4, 4)] * 3, list("abcd"), 2, include_layers=[0, 2])
    assert [site.layer for site in trace.sites] == [0, 2]
    assert [(run.name, run.start, run.stop) for run in trace.segments] == [
        ("sentence A", 0, 2),
        ("sentence B", 2, 4),
    ]
    both = from_bertviz(
        encoder_attention=[uniform(2, 2)],
        cross_attention=[uniform(3, 2)],
        decoder_attention=[uniform(3, 3)],
        encoder_tokens=["a", "b"],
        decoder_tokens=["c", "d", "e"],
    )
    assert both.tokens == ("c", "d", "e")
    with pytest.raises(CaptureError, match=r"bertviz has no \['heads'\]"):
        from_bertviz([uniform(2, 2)], ["a", "b"], heads=[1])
    with pytest.raises(CaptureError, match="sentence B starts at 9; there are 2 tokens"):
        from_bertviz([uniform(2, 2)], ["a", "b"], 9)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ((), "attentions are empty: fused kernels return none"),
        (None, "no maps were given"),
        ([(uniform(2, 2),)], "a tuple per step, as generate"),
        ([uniform(2, 2).log()], r"scores before the softmax"),
        ([uniform(2, 2) * 3], r"rows of layer 0 of the text sum 3 to 3"),
        ([uniform(2, 2) / 2], r"sum 0.5 to 0.5.*partial=True"),
        ([uniform(2, 2).expand(3, -1, -1, -1)], r"shape \(3, 2, 2, 2\); a trace is one sequence"),
        ([torch.ones(2, 2, 2, dtype=torch.long)], "is torch.int64; a map is a tensor of floating"),
        ([None], "is NoneType"),
        ([uniform(2, 2)], "3 text tokens were given for 2 positions"),
    ],
)
def test_what_is_no_map_is_refused_by_what_it_is(maps, message):
    with pytest.raises(CaptureError, match=message):
        from_attentions(maps, ["a", "b", "c"])


def test_rows_beside_a_learned_sink_may_sum_to_less():
    trace = from_attentions([uniform(2, 2) / 2], partial=True)
    assert not trace.attention[0].stochastic
