"""GradCAM of a matcher against plain autograd and against captum."""

import pytest
import torch
from torch import nn

from attnscope.interventions import (
    InterventionError,
    contrastive_similarity,
    match_image,
    match_probability,
    patch_relevance,
)
from attnscope.probes import Subject

WORDS = ["<pad>", "[CLS]", "[SEP]", "[UNK]", "is", "there", "a", "red", "square"]


@pytest.fixture(scope="module")
def matcher():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    text = small | {"num_hidden_layers": 3, "vocab_size": len(WORDS), "encoder_hidden_size": 16}
    special = {"bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "pad_token_id": 0}
    config = BlipConfig(
        text_config=text | special | {"max_position_embeddings": 16},
        vision_config=small | {"num_hidden_layers": 1, "image_size": 24, "patch_size": 6},
        image_text_hidden_size=8,
    )
    model = BlipForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(10)
    backend = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="[UNK]"
    )
    size = {"height": 24, "width": 24}
    return Subject(model, BlipProcessor(BlipImageProcessor(size=size), tokenizer))


@pytest.fixture(scope="module")
def picture():
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


TEXT = "is there a red square"


def encoded(matcher, picture):
    found = matcher.processor(images=picture, text=TEXT, return_tensors="pt")
    return {name: found[name] for name in ("pixel_values", "input_ids", "attention_mask")}


def test_the_case_worked_by_hand():
    pattern, gradient = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, -1.0]]])
    assert patch_relevance(pattern, gradient).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("block", [0, 1, -2])
def test_it_equals_the_map_differentiated_directly(matcher, picture, block):
    maps = []
    layer = matcher.model.text_encoder.encoder.layer[block].crossattention.self
    handle = layer.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    logit = matcher.model(**encoded(matcher, picture)).itm_score[0, 1]
    handle.remove()
    (slope,) = torch.autograd.grad(logit, maps)
    product = (maps[0] * slope.clamp_min(0)).detach()
    cam = product[0, :, 1:-1, 1:].mean((0, 1)).reshape(4, 4)
    found = match_image(matcher, picture, TEXT, block=block)
    assert float(cam.max()) > 0
    torch.testing.assert_close(found.relevance, cam, rtol=1e-4, atol=1e-7)


def test_it_equals_captum(matcher, picture):
    """Captum's LayerGradCam averages gradients over positions, so its activation times gradient."""
    attr = pytest.importorskip("captum.attr", reason="captum is the extra `attribution`")
    inputs = encoded(matcher, picture)

    class Matching(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = matcher.model

        def forward(self, pixels):
            return self.model(**inputs | {"pixel_values": pixels}).itm_score

    dropout = matcher.model.text_encoder.encoder.layer[1].crossattention.self.dropout
    product = attr.LayerGradientXActivation(Matching(), dropout)
    found = product.attribute(inputs["pixel_values"], target=1)
    cam = found.clamp_min(0)[0, :, 1:-1, 1:].mean((0, 1)).reshape(4, 4).detach()
    assert float(cam.max()) > 0
    torch.testing.assert_close(
        match_image(matcher, picture, TEXT).relevance, cam, rtol=1e-4, atol=1e-7
    )


def test_words_of_the_last_block_have_no_gradient(matcher, picture):
    maps = []
    layer = matcher.model.text_encoder.encoder.layer[-1].crossattention.self
    handle = layer.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    logit = matcher.model(**encoded(matcher, picture)).itm_score[0, 1]
    handle.remove()
    (slope,) = torch.autograd.grad(logit, maps)
    assert bool((slope[:, :, 1:] == 0).all())
    assert bool((slope[:, :, 0] != 0).any())


def test_similarities_are_the_matcher_s_own(matcher, picture):
    inputs = encoded(matcher, picture)
    with torch.no_grad():
        cosine = float(matcher.model(**inputs, use_itm_head=False).itm_score)
        chance = float(matcher.model(**inputs).itm_score.softmax(-1)[0, 1])
    assert match_image(matcher, picture, TEXT).similarity == pytest.approx(cosine, abs=1e-6)
    found = match_image(matcher, picture, TEXT, similarity=match_probability)
    assert found.similarity == pytest.approx(chance, abs=1e-6)
    assert contrastive_similarity(matcher.model, inputs) == pytest.approx(cosine, abs=1e-6)


def test_frozen_parameters_and_training_mode_do_not_matter(matcher, picture):
    expected = match_image(matcher, picture, TEXT)
    parameters = list(matcher.model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    matcher.model.train()
    try:
        with torch.no_grad():
            found = match_image(matcher, picture, TEXT)
        assert matcher.model.training
    finally:
        matcher.model.eval()
        for parameter in parameters:
            parameter.requires_grad_(True)
    torch.testing.assert_close(found.relevance, expected.relevance)
    assert all(parameter.grad is None for parameter in parameters)
    assert not any(module._forward_hooks for module in matcher.model.modules())


def test_what_does_not_fit_is_refused(matcher, picture):
    from transformers import BlipImageProcessor, BlipProcessor

    with pytest.raises(InterventionError, match="take 0 to 1"):
        match_image(matcher, picture, TEXT, block=5)
    with pytest.raises(InterventionError, match="only the first token"):
        match_image(matcher, picture, TEXT, block=-1)
    with pytest.raises(InterventionError, match="no token to match"):
        match_image(matcher, picture, "")
    with pytest.raises(InterventionError, match="needs its processor"):
        match_image(Subject(matcher.model), picture, TEXT)
    with pytest.raises(InterventionError, match="matches no pictures"):
        match_image(Subject(nn.Linear(1, 1), matcher.processor), picture, TEXT)
    large = BlipImageProcessor(size={"height": 48, "width": 48})
    other = BlipProcessor(large, matcher.processor.tokenizer)
    with pytest.raises(InterventionError, match=r"\(48, 48\)"):
        match_image(Subject(matcher.model, other), picture, TEXT)
