"""What a target is when tokens are there in part, against models that are fed embeddings."""

from typing import Any

import pytest
import torch

from attnscope.probes import CaptureError, Logit, Subject, TokenLoss, TokenPresence
from benchmarks.tiny_models import tiny

TARGET = Logit(7, position=-1)


@pytest.fixture
def encoded(subject, tokens):
    return subject.encode({"input_ids": tokens[:, :6]})


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_it_is_the_model_fed_with_blended_embeddings(subject, model, tokens, encoded):
    before = hooks_of(model)
    presence = TokenPresence(subject, encoded, target=TARGET)
    share = torch.tensor([1.0, 0.0, 0.25, 1.0, 0.5, 1.0])
    embedded = model.get_input_embeddings()(tokens[:, :6])
    for baseline in (None, 3):
        presence = TokenPresence(subject, encoded, target=TARGET, baseline=baseline)
        absent = 0.0
        if baseline is not None:
            absent = model.get_input_embeddings()(torch.tensor([baseline]))
        blended = share[None, :, None] * embedded + (1 - share[None, :, None]) * absent
        found = presence(torch.stack([share, torch.ones(6)]))
        for case, states in zip(found, (blended, embedded), strict=True):
            expected = model(inputs_embeds=states).logits[0, -1, 7]
            torch.testing.assert_close(case, expected, atol=1e-5, rtol=1e-4)
    assert presence.changeable.all()
    assert hooks_of(model) == before


def test_the_target_keeps_the_token_of_the_whole_input(subject, model, tokens, encoded):
    presence = TokenPresence(subject, encoded)
    assert presence.target == Logit(int(model(tokens[:, :6]).logits[0, -1].argmax()), -1)
    loss = TokenPresence(subject, encoded, target="loss")
    assert loss.target == TokenLoss()
    expected = torch.nn.functional.cross_entropy(
        model(tokens[:, :6]).logits[0, :-1], tokens[0, 1:6]
    )
    torch.testing.assert_close(loss(loss.whole)[0], expected)


def test_tokens_of_an_encoder_or_of_a_decoder_can_go():
    model, inputs = tiny("T5")
    subject = Subject(model)
    encoded = subject.encode(inputs)
    target = Logit(5, -1)
    reading = TokenPresence(subject, encoded, target=target)
    assert reading.sequence.name == "encoder"
    language_model: Any = model
    embed = language_model.get_input_embeddings()
    expected = model(
        inputs_embeds=0 * embed(inputs["input_ids"]), decoder_input_ids=inputs["decoder_input_ids"]
    ).logits[0, -1, 5]
    torch.testing.assert_close(reading(0 * reading.whole)[0], expected, atol=1e-5, rtol=1e-4)
    spoken = TokenPresence(subject, encoded, target=target, sequence="decoder")
    expected = model(
        input_ids=inputs["input_ids"], decoder_inputs_embeds=0 * embed(inputs["decoder_input_ids"])
    ).logits[0, -1, 5]
    torch.testing.assert_close(spoken(0 * spoken.whole)[0], expected, atol=1e-5, rtol=1e-4)


def without_patch(pixels, row, column, size):
    blurred = pixels.clone()
    rows, columns = slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)
    blurred[..., rows, columns] = pixels.mean((-2, -1), keepdim=True)
    return blurred


def test_patches_of_a_classifier_become_the_mean_color():
    model, inputs = tiny("ViT")
    presence = TokenPresence(Subject(model), Subject(model).encode(inputs), target=Logit(1))
    assert presence.changeable.tolist() == [False] + [True] * 16
    there = presence.whole.clone()
    there[0, 1 + 6] = 0
    pixels = without_patch(inputs["pixel_values"], 1, 2, 6)
    torch.testing.assert_close(presence(there)[0], model(pixel_values=pixels).logits[0, 1])


def test_patches_and_words_of_a_vision_language_model_can_go():
    model, inputs = tiny("LLaVA")
    presence = TokenPresence(Subject(model), Subject(model).encode(inputs), target=TARGET)
    image = presence.sequence.segments["image"]
    assert presence.changeable.all()
    there = presence.whole.clone()
    there[0, image[5]] = 0
    pixels = without_patch(inputs["pixel_values"], 1, 1, 6)
    expected = model(**{**inputs, "pixel_values": pixels}).logits[0, -1, 7]
    torch.testing.assert_close(presence(there)[0], expected)
    word = presence.whole.clone()
    word[0, -1] = 0
    with torch.no_grad():
        assert float(presence(word)[0]) != float(presence(presence.whole)[0])


def test_patches_of_a_model_that_lists_them_can_go():
    model, inputs = tiny("Qwen2-VL")
    presence = TokenPresence(Subject(model), Subject(model).encode(inputs), target=TARGET)
    image = presence.sequence.segments["image"]
    merged = len(inputs["pixel_values"]) // len(image)
    there = presence.whole.clone()
    there[0, image[1]] = 0
    pixels = inputs["pixel_values"].clone()
    color = pixels.reshape(len(pixels), 3, -1).mean((0, 2))
    pixels[merged : 2 * merged] = color.repeat_interleave(pixels.shape[1] // 3)
    expected = model(**{**inputs, "pixel_values": pixels}).logits[0, -1, 7]
    torch.testing.assert_close(presence(there)[0], expected)


def test_what_does_not_fit_is_refused(subject, model, encoded):
    with pytest.raises(CaptureError, match=r"no sequence 'encoder' in this input; .* \['text'\]"):
        TokenPresence(subject, encoded, sequence="encoder")
    presence = TokenPresence(subject, encoded, target=TARGET)
    with pytest.raises(CaptureError, match="presence has 5 numbers per case"):
        presence(torch.ones(1, 5))
    model.train()
    presence(presence.whole)
    assert model.training
    model.eval()
