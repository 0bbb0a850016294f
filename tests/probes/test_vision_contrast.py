"""One response with and without its picture, in every family, against the models' own tensors."""

from contextlib import ExitStack

import pytest
import torch

from attnscope.metrics import MetricError
from attnscope.probes import (
    CaptureError,
    Encoded,
    heads_by_vision,
    image_contrast,
    token_divergence,
    with_blank_image,
    with_noise_image,
    without_image,
)
from attnscope.probes.forward import forward
from tests.probes.vision_language import FAMILIES, answered, inputs, subject

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own
DROPPED = [name for name in FAMILIES if name != "BLIP-2"]
"""All but the one whose forward pass cannot do without a picture."""


def own_outputs(name: str, encoded: Encoded) -> torch.Tensor:
    """Return what enters the output projections of the text's layers: layer token head dim."""
    model, seen = subject(name).model, []
    with ExitStack() as stack, torch.no_grad():
        for path, module in model.named_modules():
            if path.endswith("self_attn.o_proj") and "vision" not in path:
                handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
                stack.callback(handle.remove)
        forward(subject(name), encoded, keep_logits=True)
    return torch.stack(seen).unflatten(-1, (4, -1))


@pytest.mark.parametrize("name", DROPPED)
def test_the_picture_is_gone_and_the_words_have_moved_up(name):
    encoded = answered(name)
    bare = without_image(subject(name), encoded)
    assert not any("pixel" in key or "image" in key for key in bare.model_inputs)
    before, after = encoded.sequences["text"], bare.sequences["text"]
    pictured = set(before.segments["image"])
    assert after.ids == tuple(t for p, t in enumerate(before.ids) if p not in pictured)
    assert bare.model_inputs["input_ids"][0].tolist() == list(after.ids)
    assert bare.model_inputs["attention_mask"].shape == (1, len(after))
    assert "image" not in after.segments
    for segment in ("prompt", "response"):
        left = [before.ids[p] for p in before.segments[segment]]
        assert [after.ids[p] for p in after.segments[segment]] == left


@pytest.mark.parametrize("name", DROPPED)
def test_divergence_is_that_of_what_enters_the_output_projections(name):
    encoded = answered(name)
    bare = without_image(subject(name), encoded)
    contrast = image_contrast(subject(name), encoded)
    assert contrast.divergence.axes == ("layer", "head", "token")
    assert contrast.divergence.values.shape == (2, 4, 4)
    seen, unseen = (own_outputs(name, one)[:, -5:-1] for one in (encoded, bare))
    slow = (seen - unseen).norm(dim=-1).mT
    torch.testing.assert_close(contrast.divergence.values, slow, rtol=1e-4, atol=1e-5)
    active = unseen.norm(dim=-1).mT
    torch.testing.assert_close(contrast.activation.values, active, rtol=1e-4, atol=1e-5)
    assert float(slow.min()) > 0


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("removal", [with_blank_image, with_noise_image])
def test_a_repainted_picture_keeps_every_position(name, removal):
    encoded = answered(name)
    painted = removal(subject(name), encoded)
    assert painted.sequences == encoded.sequences
    was, now = encoded.model_inputs["pixel_values"], painted.model_inputs["pixel_values"]
    torch.testing.assert_close(was.mean(), now.mean(), rtol=0.1, atol=0.1)
    assert not was.equal(now)
    contrast = image_contrast(subject(name), encoded, removal=removal)
    assert contrast.divergence.options == {"removal": removal.__name__}
    assert float(contrast.divergence.values.max()) > 1e-3


def test_nothing_removed_is_no_divergence():
    contrast = image_contrast(
        subject("LLaVA"), answered("LLaVA"), layers=[1], removal=lambda _, encoded: encoded
    )
    assert contrast.divergence.coordinates["layer"] == (1,)
    assert float(contrast.divergence.values.abs().max()) == 0.0
    assert float(heads_by_vision(contrast.divergence).values.max()) == 0.0
    assert float(token_divergence(contrast.divergence, k=2).values.max()) == 0.0


def test_readings_of_tokens_and_of_heads_go_on_from_it():
    contrast = image_contrast(subject("LLaVA"), answered("LLaVA"))
    values = contrast.divergence.values
    tokens = token_divergence(contrast.divergence, k=3)
    torch.testing.assert_close(tokens.values, values.topk(3, dim=1).values.sum((0, 1)))
    assert tokens.positions["token"] == tuple(range(38, 42))
    assert tokens.select(token=38).values.shape == ()
    chosen = heads_by_vision(contrast.divergence).values
    middle = values.sort(dim=1).values[:, 1:3].mean(1, keepdim=True)
    assert chosen.equal((values > middle).float())
    zeroed = contrast.without_outliers(squared=False, sample_std=True)
    bars = [x.mean(1, keepdim=True) + x.std(1, keepdim=True) for x in _both(contrast)]
    surges = (values > bars[0]) & (contrast.activation.values > bars[1])
    torch.testing.assert_close(zeroed.values, values.masked_fill(surges, 0))
    assert zeroed.options["sample_std"] is True
    with pytest.raises(MetricError, match=r"VHD has the axes layer, head and token; token_vhd has"):
        heads_by_vision(tokens)


def _both(contrast):
    return contrast.divergence.values, contrast.activation.values


def test_refuses_what_cannot_be_compared():
    held, told = subject("LLaVA"), answered("LLaVA")
    with pytest.raises(CaptureError, match=r"no response segment; sequence 'text' has \['prompt'"):
        image_contrast(held, inputs("LLaVA"))
    words = held.encode({"input_ids": torch.tensor([[1, 5, 6]])})
    with pytest.raises(CaptureError, match=r"no image segment .* \{'text': \['prompt'\]"):
        without_image(held, words)
    with pytest.raises(CaptureError, match="no picture to repaint"):
        with_blank_image(held, words)
    odd = Encoded(
        model_inputs={**told.model_inputs, "strange": torch.ones(1, 3)}, sequences=told.sequences
    )
    with pytest.raises(CaptureError, match=r"strange \(1, 3\) belongs neither"):
        without_image(held, odd)
    with pytest.raises(CaptureError, match="the response changed from"):
        image_contrast(held, told, removal=lambda *_: answered("LLaVA", 3))
