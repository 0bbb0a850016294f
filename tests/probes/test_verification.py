"""A trace is held against the model's own slow attention; whatever is planted in it is found."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import GptOssConfig, GptOssForCausalLM, MistralConfig, MistralForCausalLM

from attnscope import capture
from attnscope.attention import DenseAttention, Mask, Mixing, SoftmaxAttention
from attnscope.probes import CaptureError, Measuring, Subject, capture_each, verify
from attnscope.traces import Trace, open_trace

IDS = torch.randint(6, 40, (1, 17), generator=torch.Generator().manual_seed(1))
SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def windowed() -> Subject:
    torch.manual_seed(0)
    return Subject(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=5)).eval(), name="tiny")


@pytest.fixture(scope="module")
def trace(windowed) -> Trace:
    return capture(windowed, {"input_ids": IDS})


@pytest.fixture(scope="module")
def sunken() -> Subject:
    torch.manual_seed(0)
    config = GptOssConfig(
        **SIZES, num_local_experts=2, num_experts_per_tok=1, head_dim=8, sliding_window=6
    )
    model = GptOssForCausalLM(config).eval()
    for layer in model.model.layers:
        layer.self_attn.sinks.data.normal_()
    return Subject(model)


def planted(trace: Trace, fault, layer: int = 1) -> Trace:
    """Return the trace with another operator, or another observation, at one layer."""
    changed = []
    for seen in trace.observations:
        found = fault(seen) if seen.site.layer == layer else seen
        changed.append(found if not isinstance(found, SoftmaxAttention | DenseAttention)
                       else replace(seen, attention=found))  # fmt: skip
    return replace(trace, observations=changed)


def rebuilt(attention: SoftmaxAttention, **changes) -> SoftmaxAttention:
    names = ("query", "key", "scale", "mask", "bias", "softcap", "sinks")
    return SoftmaxAttention(**({name: getattr(attention, name) for name in names} | changes))


def failed(verification) -> set[str]:
    return {check.what for check in verification.failures}


def test_what_was_captured_passes(trace, windowed):
    found = verify(trace, windowed)
    assert found.passed, found
    assert {check.what for check in found.checks} == {
        "type", "weights fingerprint", "tokens", "segments", "weights", "row sums", "outputs",
        "layer order",
    }  # fmt: skip
    assert found.largest("weights") < 1e-6
    assert found.largest("outputs") < 1e-5


def test_a_stored_trace_passes_from_its_own_ids(trace, windowed, tmp_path):
    trace.save(tmp_path / "t.safetensors")
    assert verify(open_trace(tmp_path / "t.safetensors"), windowed, layers=[-1], rows=3).passed


def test_the_model_is_left_as_it_was(trace, windowed):
    model = windowed.model
    before = model.config._attn_implementation, [len(m._forward_hooks) for m in model.modules()]
    model.train()
    try:
        verify(trace, windowed, layers=0)
        assert model.training
    finally:
        model.eval()
    after = model.config._attn_implementation, [len(m._forward_hooks) for m in model.modules()]
    assert before == after
    assert not model.config.output_attentions


SOFTMAX_FAULTS = {
    "causality lost": lambda a: rebuilt(a, mask=replace(a.mask, after=None)),
    "window one too wide": lambda a: rebuilt(a, mask=replace(a.mask, before=a.mask.before + 1)),
    "window one too narrow": lambda a: rebuilt(a, mask=replace(a.mask, before=a.mask.before - 1)),
    "swapped heads": lambda a: a.select_heads([1, 0, 2, 3]),
    "wrong scale": lambda a: rebuilt(a, scale=a.scale * 1.05),
    "other KV heads": lambda a: rebuilt(a, key=a.key[[0, 1, 0, 1]]),
    "before softmax": lambda a: DenseAttention(
        a.scale * a.query @ a.key.repeat_interleave(2, dim=0).mT
    ),
    "not a number": lambda a: rebuilt(a, query=a.query * torch.nan),
}


@pytest.mark.parametrize("fault", SOFTMAX_FAULTS)
def test_a_wrong_map_is_found(trace, windowed, fault):
    wrong = planted(trace, lambda seen: SOFTMAX_FAULTS[fault](seen.attention))
    found = verify(wrong, windowed)
    assert not found.passed
    assert "weights" in failed(found)
    # The other layer is as it was, and nothing is said against it.
    assert all("layers.1" in check.where for check in found.failures)


def test_values_of_other_kv_heads_are_found(trace, windowed):
    wrong = planted(trace, lambda seen: replace(seen, value=seen.value.flip(0)))
    assert failed(verify(wrong, windowed)) == {"outputs"}


def test_a_dropped_sink_column_is_found(sunken):
    trace = capture(sunken, {"input_ids": IDS})
    assert verify(trace, sunken).passed
    wrong = planted(trace, lambda seen: rebuilt(seen.attention, sinks=None))
    assert {"weights", "row sums"} <= failed(verify(wrong, sunken))


def test_layers_in_another_order_are_found(trace, windowed):
    first, second = trace.observations
    swapped = replace(
        trace,
        observations=[
            replace(first, attention=second.attention),
            replace(second, attention=first.attention),
        ],
    )
    assert "weights" in failed(verify(swapped, windowed))
    sites = replace(first.site, layer=1), replace(second.site, layer=0)
    renamed = replace(
        trace, observations=[replace(first, site=sites[0]), replace(second, site=sites[1])]
    )
    found = verify(renamed, windowed)
    assert "layer order" in failed(found)
    assert "calls it layer 1; its module is layer 0" in str(found.failures[0])


def test_stale_weights_are_found(trace, windowed):
    torch.manual_seed(1)
    other = Subject(MistralForCausalLM(windowed.model.config).eval())
    found = verify(trace, other)
    assert {"weights fingerprint", "weights"} <= failed(found)
    unmarked = replace(trace, provenance=replace(trace.provenance, weights=None))
    assert failed(verify(unmarked, other)) >= {"weights", "outputs"}


def test_ignored_padding_is_found(windowed):
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), IDS], dim=1)
    mask = (padded > 0).long()
    given = {"input_ids": padded, "attention_mask": mask}
    ignoring = capture(windowed, {"input_ids": padded})
    assert failed(verify(ignoring, windowed, given)) >= {"tokens", "weights"}
    (heeding,) = capture_each(windowed, given)
    assert verify(heeding, windowed, given).passed


def test_an_empty_tuple_of_maps_is_no_proof(trace, windowed, monkeypatch):
    nothing = replace(trace, observations=[])
    found = verify(nothing, windowed)
    assert failed(found) == {"sites"}
    from transformers.models.mistral import modeling_mistral

    eager = modeling_mistral.eager_attention_forward
    silent = lambda *args, **options: (eager(*args, **options)[0], None)  # noqa: E731
    monkeypatch.setattr(modeling_mistral, "eager_attention_forward", silent)
    found = verify(trace, windowed)
    assert "was asked for its weights and returned none" in found.failures[0].note
    assert not found.passed


def test_other_tokens_and_segments_are_found(subject):
    trace = capture(subject, "the cat sat", response=" on a mat")
    given = subject.encode("the cat sat", response=" on a mat")
    assert verify(trace, subject, given).passed
    text = trace.sequences["text"]

    def told(**changes):
        told = replace(text, **changes)
        seen = [replace(one, queries=told, keys=told) for one in trace.observations]
        return replace(trace, sequences={"text": told}, observations=seen)

    assert failed(verify(told(tokens=("?", *text.tokens[1:])), subject)) == {"tokens"}
    assert "tokens" in failed(verify(told(ids=(7, *text.ids[1:])), subject, given))
    moved = replace(text.segments, runs=text.segments.runs[:1])
    assert failed(verify(told(segments=moved), subject, given)) == {"segments"}


def test_a_capture_can_prove_itself(windowed, tmp_path):
    trace = capture(windowed, {"input_ids": IDS}, verify=True)
    assert trace.card.verification.passed
    trace.save(tmp_path / "t.safetensors")
    again = open_trace(tmp_path / "t.safetensors")
    assert again.card == trace.card
    assert "verified: passed of" in repr(again)
    with pytest.raises(CaptureError, match="only a trace can be verified"):
        capture(windowed, {"input_ids": IDS}, into=Measuring("head_span"), verify=True)


class _Torch(nn.Module):
    """A layer of torch's own attention, and one that asks for the fused kernel itself."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(16, 2, batch_first=True)
        self.kernel = _Kernel()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.kernel(self.heads(hidden, hidden, hidden, need_weights=False)[0])


class _Kernel(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        split = hidden.unflatten(-1, (2, 8)).transpose(1, 2)
        read = nn.functional.scaled_dot_product_attention(split, split, split, is_causal=True)
        return read.transpose(1, 2).flatten(2)


class _Ours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixing = Mixing()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        split = hidden.unflatten(-1, (2, 8)).transpose(1, 2)
        attention = SoftmaxAttention(split, split, mask=Mask(after=0, before=3), softcap=2.0)
        return self.mixing(attention, split).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kind", [_Torch, _Ours])
def test_modules_of_torch_and_of_ours_are_proved_by_other_ways(kind):
    torch.manual_seed(0)
    subject, given = Subject(kind().eval()), {"hidden": torch.randn(1, 9, 16)}
    trace = capture(subject, given)
    found = verify(trace, subject, given)
    assert found.passed, found
    ways = {check.note for check in found.checks if check.what == "weights"}
    assert "the plain formula over the module's factors" in ways
    assert ("weights that torch returns" in ways) is (kind is _Torch)
    wrong = replace(
        trace,
        observations=[
            replace(seen, attention=DenseAttention(seen.attention.dense().flip(-1), offset=0))
            for seen in trace.observations
        ],
    )
    failing = [check for check in verify(wrong, subject, given).failures if check.what == "weights"]
    assert len(failing) == len(trace.sites)


def test_pictures_have_to_be_given_again():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2).eval()
    picture = {"x": torch.randn(1, 3, 32, 32)}
    trace = capture(Subject(model), picture)
    with pytest.raises(CaptureError, match="pixels are not in a trace"):
        verify(trace, Subject(model))
    found = verify(trace, Subject(model), picture)
    assert found.passed, found
    assert any(check.note == "the module's own softmax" for check in found.checks)


def test_half_precision_states_its_tolerance(windowed):
    import copy

    half = Subject(copy.deepcopy(windowed.model).bfloat16())
    trace = capture(half, {"input_ids": IDS})
    found = verify(trace, half)
    assert found.passed, found
    assert {check.tolerance for check in found.checks if check.what == "weights"} == {5e-2}
    assert math.isfinite(found.largest("weights"))
    assert "float32 now" in str(verify(trace, windowed).failures[0])
