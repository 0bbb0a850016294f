"""Families of transformers that compute their own softmax, and do not go through its seam."""

import pytest
import torch

from attnscope import capture, open_trace
from attnscope.attention import AlibiBias, DenseAttention, DenseBias, SoftmaxAttention
from attnscope.probes import CaptureError, Subject
from attnscope.probes.adapters.eager_families import FAMILIES, alibi_bias
from tests.probes.adapter_contract import AdapterCase, AdapterContract

SIZES = {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4}
GPT = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CASES = {
    "GPT-J": ("GPTJ", "GPTJForCausalLM", GPT | {"rotary_dim": 4}),
    "CodeGen": ("CodeGen", "CodeGenForCausalLM", GPT | {"rotary_dim": 4}),
    "BLOOM": ("Bloom", "BloomForCausalLM", SIZES),
    "BLOOM, odd heads": ("Bloom", "BloomForCausalLM", SIZES | {"hidden_size": 36, "n_head": 6}),
    "Falcon": ("Falcon", "FalconForCausalLM", SMALL | {"multi_query": True}),
    "Falcon, alibi": ("Falcon", "FalconForCausalLM", SMALL | {"alibi": True}),
    "MPT": (
        "Mpt",
        "MptForCausalLM",
        {"vocab_size": 99, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    ),
    "DeBERTa-v2": ("DebertaV2", "DebertaV2ForMaskedLM", SMALL),
    "DeBERTa-v2, disentangled": (
        "DebertaV2",
        "DebertaV2ForMaskedLM",
        SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "RoFormer": ("RoFormer", "RoFormerForMaskedLM", SMALL),
}


def build(name):
    import transformers

    family, head, sizes = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes, initializer_range=0.2)
    model = getattr(transformers, head)(config).eval()
    return model, {"input_ids": torch.randint(6, 99, (1, 11))}


def eager_maps(model, inputs):
    """Return the maps that the model returns when asked (Falcon adds its penalty twice there)."""
    if getattr(model.config, "alibi", False):
        return falcon_maps(model, inputs)
    before = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        maps = [one[0] for one in model(**inputs, output_attentions=True).attentions]
    model.config._attn_implementation = before
    return maps


def falcon_maps(model, inputs):
    """Return Falcon's maps by the paper: scores plus slopes of distance, one softmax."""
    maps, ids = [], torch.arange(11)
    slopes = torch.tensor([2.0**-power for power in (2, 4, 6, 8)])
    distance = (ids[None] - ids[:, None]) * slopes[:, None, None] / 8**0.5

    def keep(module, args, output):
        query, key, _ = (part.transpose(1, 2) for part in module._split_heads(output_of[module]))
        scores = query @ key.mT / 8**0.5 + distance
        maps.append(scores.masked_fill(ids[None] > ids[:, None], -torch.inf).softmax(-1)[0])

    output_of, handles = {}, []
    for layer in model.transformer.h:
        attention = layer.self_attention
        attention.query_key_value.register_forward_hook(
            lambda module, args, output, owner=attention: output_of.__setitem__(owner, output)
        )
        handles.append(attention.register_forward_hook(keep))
    with torch.no_grad():
        model(**inputs)
    for layer, handle in zip(model.transformer.h, handles, strict=True):
        layer.self_attention.query_key_value._forward_hooks.clear()
        handle.remove()
    return maps


@pytest.mark.filterwarnings("ignore")  # the library's own
class TestFamilies(AdapterContract):
    @pytest.fixture(params=CASES)
    def case(self, request):
        model, inputs = build(request.param)
        exact = request.param != "Falcon, alibi"  # its mask is cut into rules and slopes
        return AdapterCase(model=model, inputs=inputs, maps=eager_maps(model, inputs), exact=exact)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["GPT-J", "CodeGen", "BLOOM", "Falcon", "MPT"])
def test_known_families_are_kept_by_their_factors(name, tmp_path):
    model, inputs = build(name)
    trace = capture(Subject(model), inputs)
    attention = trace.attention[0]
    assert isinstance(attention, SoftmaxAttention)
    assert attention.causal
    assert attention.mask.is_plain_causal
    assert isinstance(attention.bias, AlibiBias if name in ("BLOOM", "MPT") else type(None))
    assert trace.log_probabilities is not None
    trace.save(tmp_path / "run.safetensors")
    stored = open_trace(tmp_path / "run.safetensors")
    torch.testing.assert_close(stored.attention[1].dense(), trace.attention[1].dense())


@pytest.mark.filterwarnings("ignore")
def test_other_families_are_kept_by_their_scores_or_by_the_map_that_they_applied():
    model, inputs = build("DeBERTa-v2, disentangled")
    assert isinstance(capture(Subject(model), inputs).attention[1], DenseAttention)
    plain, inputs = build("RoFormer")
    assert isinstance(capture(Subject(plain), inputs).attention[1], SoftmaxAttention)


@pytest.mark.filterwarnings("ignore")
def test_maps_of_scores_that_16_bits_rounded_are_kept_as_they_were_applied():
    model, _ = build("BLOOM")
    model = model.to(torch.bfloat16)
    inputs = {"input_ids": torch.randint(6, 99, (1, 700))}
    trace = capture(Subject(model), inputs)
    assert isinstance(trace.attention[0], DenseAttention)
    with torch.no_grad():
        expected = model(**inputs, output_attentions=True).attentions[0][0]
    assert torch.equal(trace.attention[0].dense(), expected)


def test_slopes_are_read_from_penalties_that_grow_evenly():
    slopes = torch.tensor([0.5, 0.3])
    even = (slopes[:, None] * torch.arange(5.0) - 2)[None]
    bias = alibi_bias(even, 5)
    assert isinstance(bias, AlibiBias)
    torch.testing.assert_close(bias.slopes, slopes)
    assert isinstance(alibi_bias(even.square(), 5), DenseBias)
    assert isinstance(alibi_bias(torch.cat([even, 2 * even]), 5), DenseBias)


@pytest.mark.filterwarnings("ignore")
def test_factors_that_do_not_give_the_applied_map_are_not_kept(monkeypatch):
    model, inputs = build("GPT-J")
    wrong = lambda heard: SoftmaxAttention(heard.query, heard.key, 5.0)  # noqa: E731
    monkeypatch.setitem(FAMILIES, "GPTJAttention", wrong)
    found = capture(Subject(model), inputs).attention[1]
    assert isinstance(found, DenseAttention)
    torch.testing.assert_close(found.dense(), eager_maps(model, inputs)[1])


@pytest.mark.filterwarnings("ignore")
def test_encoder_decoders_with_their_own_softmax_are_refused():
    import transformers

    config = transformers.LEDConfig(
        vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1, attention_window=4
    )
    model = transformers.LEDForConditionalGeneration(config)
    with pytest.raises(CaptureError, match="no adapter hears the attention of LED"):
        capture(Subject(model), {"input_ids": torch.randint(6, 99, (1, 8))})
