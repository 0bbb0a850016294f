"""Activation caches of TransformerLens."""

import pytest
import torch

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.probes import CaptureError
from attnscope.probes.importing import from_lens_cache

HEADS, LENGTH, WIDTH = 2, 5, 4


def cache_of(layers=2, **changes):
    generator = torch.Generator().manual_seed(0)
    cache = {}
    for layer in range(layers):
        query, key, value = torch.randn(3, 1, LENGTH, HEADS, WIDTH, generator=generator)
        scores = query[0].transpose(0, 1) @ key[0].transpose(0, 1).mT / 2
        hidden = torch.ones(LENGTH, LENGTH).triu(1).bool()
        pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)[None]
        held = {"q": query, "k": key, "v": value, "pattern": pattern, "attn_scores": pattern}
        for name, tensor in (held | changes).items():
            cache[f"blocks.{layer}.attn.hook_{name}"] = tensor
    return cache


def test_factors_are_kept_where_they_give_the_cached_map():
    trace = from_lens_cache(cache_of(), list("abcde"))
    assert isinstance(trace.attention[1], SoftmaxAttention)
    torch.testing.assert_close(
        trace.attention[1].dense(), cache_of()["blocks.1.attn.hook_pattern"][0]
    )
    assert trace.provenance.notes["kept as"] == "factors of 2 layers"
    assert trace.observations[0].value.shape == (HEADS, LENGTH, WIDTH)
    assert trace.tokens == tuple("abcde")


def test_rotated_factors_stand_before_unrotated_ones():
    cache = cache_of(layers=1)
    for side in "qk":
        cache[f"blocks.0.attn.hook_rot_{side}"] = cache[f"blocks.0.attn.hook_{side}"]
        cache[f"blocks.0.attn.hook_{side}"] = torch.randn(1, LENGTH, HEADS, WIDTH)
    assert isinstance(from_lens_cache(cache).attention[0], SoftmaxAttention)


def test_maps_are_kept_where_factors_do_not_give_them():
    wrong = torch.randn(1, LENGTH, HEADS, WIDTH)
    for changes in ({"q": wrong}, {"q": None}, {"k": wrong[:, :3]}):
        trace = from_lens_cache(cache_of(**changes))
        assert isinstance(trace.attention[0], DenseAttention)
        assert trace.provenance.notes["kept as"] == "dense maps of 2 layers"


def test_what_stands_under_scores_is_never_taken_for_a_map():
    cache = {name: one for name, one in cache_of().items() if "pattern" not in name}
    with pytest.raises(CaptureError, match=r"no hook_pattern of layers \[0, 1\]"):
        from_lens_cache(cache)
    with pytest.raises(CaptureError, match="no hook_pattern of any layer"):
        from_lens_cache({"blocks.0.hook_resid_pre": torch.zeros(1)})


def test_scores_under_the_name_of_a_pattern_are_refused():
    with pytest.raises(CaptureError, match="hook_pattern of layer 0 has entries from"):
        from_lens_cache(cache_of(pattern=torch.randn(1, HEADS, LENGTH, LENGTH)))


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_a_real_cache_is_the_capture_of_the_same_model():
    pytest.importorskip("transformer_lens")
    from attnscope import capture
    from attnscope.probes import Subject
    from tests.probes.test_lens_attention import TOKENS, bridge_of

    for name in ("Qwen2ForCausalLM", "Gemma2ForCausalLM"):
        bridge, _ = bridge_of(name)
        _, cache = bridge.run_with_cache(TOKENS)
        trace = from_lens_cache(cache)
        captured = capture(Subject(bridge), {"input_ids": TOKENS})
        for layer in (0, 1):
            torch.testing.assert_close(
                trace.attention[layer].dense(),
                captured.attention[layer].dense(),
                atol=1e-5,
                rtol=1e-4,
            )
