"""Models that TransformerLens holds, and traces under its names."""

import copy

import pytest
import torch

from attnscope import capture
from attnscope.attention import AlibiBias, DenseAttention, SoftmaxAttention
from attnscope.probes import Collector, LensCache, Subject
from tests.probes.adapter_contract import AdapterCase, AdapterContract

pytest.importorskip("transformer_lens")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
GPT = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
CASES = {
    "GPT2LMHeadModel": ("GPT2", GPT),
    "Qwen2ForCausalLM": ("Qwen2", SMALL | {"num_key_value_heads": 2}),
    "Gemma2ForCausalLM": (
        "Gemma2",
        SMALL | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
    ),
    "GPTJForCausalLM": ("GPTJ", GPT | {"rotary_dim": 4}),
    "BloomForCausalLM": (
        "Bloom",
        {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    ),
    "BertForMaskedLM": ("Bert", SMALL),
}
TOKENS = torch.randint(6, 99, (1, 11), generator=torch.Generator().manual_seed(4))


def bridge_of(name):
    """Return a bridge, and the maps of the same model before the bridge took it."""
    import transformers
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    family, sizes = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    config.architectures = [name]
    model = getattr(transformers, name)(config).eval()
    plain = copy.deepcopy(model)
    plain.config._attn_implementation = "eager"
    with torch.no_grad():
        maps = [one[0] for one in plain(TOKENS, output_attentions=True).attentions]
    return build_bridge_from_module(model, name, hf_config=config), maps


class TestBridges(AdapterContract):
    @pytest.fixture(params=CASES)
    def case(self, request):
        bridge, maps = bridge_of(request.param)
        return AdapterCase(model=bridge, inputs={"input": TOKENS}, maps=maps, exact=True)


def test_bridges_are_read_by_their_factors():
    for name in CASES:
        bridge, _ = bridge_of(name)
        trace = capture(Subject(bridge), {"input_ids": TOKENS})
        attention = trace.attention[0]
        assert isinstance(attention, SoftmaxAttention), name
        assert attention.causal == (name != "BertForMaskedLM")
        assert (attention.softcap == 50) == (name == "Gemma2ForCausalLM")
        assert isinstance(attention.bias, AlibiBias) == (name == "BloomForCausalLM")
        assert [site.layer for site in trace.sites] == [0, 1]
        assert len(trace.stacks) == 1
        assert "_original_component" not in trace.stacks[0]


def test_tokens_of_a_bridge_have_log_probabilities():
    bridge, _ = bridge_of("GPT2LMHeadModel")
    trace = capture(Subject(bridge), {"input_ids": TOKENS})
    with torch.no_grad():
        expected = bridge(TOKENS)[0].log_softmax(-1)[range(10), TOKENS[0, 1:]]
    torch.testing.assert_close(trace.log_probabilities[1:], expected)


def test_hooks_of_the_user_fire_and_what_they_change_is_what_is_heard():
    bridge, maps = bridge_of("Qwen2ForCausalLM")
    seen = []

    def edit(pattern, hook):
        seen.append(hook.name)
        return torch.ones_like(pattern).tril() / torch.arange(1, 12)[:, None]

    bridge.add_hook("blocks.1.attn.hook_pattern", edit)
    trace = capture(Subject(bridge), {"input_ids": TOKENS})
    bridge.reset_hooks()
    assert len(seen) == 1
    assert isinstance(trace.attention[1], DenseAttention)
    assert float(trace.attention[1].dense()[0, 3, 0]) == 0.25
    torch.testing.assert_close(trace.attention[0].dense(), maps[0], atol=1e-6, rtol=1e-4)


def test_a_cache_taken_afterwards_is_what_it_was_before():
    bridge, _ = bridge_of("GPT2LMHeadModel")
    _, before = bridge.run_with_cache(TOKENS)
    capture(Subject(bridge), {"input_ids": TOKENS})
    _, after = bridge.run_with_cache(TOKENS)
    assert list(before) == list(after)
    assert all(
        torch.equal(before[name], after[name]) for name in before if before[name] is not None
    )


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "Qwen2ForCausalLM"])
def test_a_trace_speaks_the_names_of_the_library(name):
    bridge, _ = bridge_of(name)
    _, theirs = bridge.run_with_cache(TOKENS)
    trace = capture(Subject(bridge), {"input_ids": TOKENS}, into=Collector(hidden=True))
    ours = LensCache(trace)
    rotated = "rot_" if name == "Qwen2ForCausalLM" else ""
    for layer in (0, 1):
        for short in ("pattern", "z", "resid_pre"):
            full = f"blocks.{layer}.{'' if short == 'resid_pre' else 'attn.'}hook_{short}"
            assert torch.equal(ours[short, layer], ours[full])
            torch.testing.assert_close(ours[full], theirs[full], atol=1e-5, rtol=1e-4)
        query = theirs[f"blocks.{layer}.attn.hook_{rotated}q"]
        torch.testing.assert_close(ours["rot_q", layer], query)
    torch.testing.assert_close(ours["pattern", -1], ours["pattern", 1])
    assert len(ours) == 2 * 6
    assert "blocks.0.attn.hook_z" in ours
    assert ("pattern", 5) not in ours


def test_names_that_a_trace_does_not_hold_are_refused():
    bridge, _ = bridge_of("GPT2LMHeadModel")
    cache = LensCache(capture(Subject(bridge), {"input_ids": TOKENS}))
    with pytest.raises(KeyError, match=r"no 'attn_scores' of layer 0; there are \['rot_q'"):
        cache["attn_scores", 0]
    with pytest.raises(KeyError, match=r"no layer 9; there are \[0, 1\]"):
        cache["pattern", 9]
    with pytest.raises(KeyError, match="is no name such as"):
        cache["pattern"]
