"""Pictures with words, as a user gives them: the answer is told from the question."""

import copy

import pytest
import torch

from attnscope.probes import CaptureError, Subject, capture, image_contrast
from tests.probes.vision_language import FAMILIES, IMAGE, inputs, subject

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own


@pytest.fixture
def pictured(tokenizer):
    """Return a tiny LLaVA with a processor that makes four by four tokens of a picture."""
    import transformers

    base = subject("LLaVA").model
    tokenizer = copy.deepcopy(tokenizer)  # that of the other tests stays as it is
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    )
    processor = transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=6,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    config = type(base.config)(**{**FAMILIES["LLaVA"].options, "image_token_index": IMAGE})
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    return Subject(type(base)(config).eval(), processor)


@pytest.fixture
def picture():
    import numpy
    from PIL import Image

    pixels = numpy.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def words(encoded, name):
    text = encoded.sequences["text"]
    return [text.tokens[place] for place in text.segments[name]]


def test_the_response_to_a_text_with_a_picture_is_told_from_it(pictured, picture):
    encoded = pictured.encode("<image> the cat sat ", response="on a mat", images=[picture])
    assert words(encoded, "response") == ["on", "a", "mat"]
    assert words(encoded, "prompt") == ["the", "cat", "sat"]
    image = next(run for run in encoded.sequences["text"].segments if run.name == "image")
    assert image.grid == (4, 4)
    assert capture(pictured, encoded).segments["response"] == [19, 20, 21]
    assert float(image_contrast(pictured, encoded).divergence.values.min()) > 0


def test_the_last_words_of_a_chat_with_a_picture_are_the_response(pictured, picture):
    chat = [
        {"role": "user", "content": "<image> the cat"},
        {"role": "assistant", "content": "sat on"},
    ]
    encoded = pictured.encode(chat, images=[picture])
    assert words(encoded, "response") == ["sat", "on"]
    assert words(encoded, "prompt") == ["the", "cat"]
    asked = pictured.encode(chat[:1], images=[picture])
    assert "response" not in asked.sequences["text"].segments


@pytest.mark.parametrize("name", ["LLaVA", "Qwen2-VL", "PaliGemma", "Gemma 3"])
def test_an_answer_to_a_picture_can_be_captured(name):
    given = inputs(name, answer=0)
    encoded = subject(name).generate(given, max_new_tokens=3, min_new_tokens=3)
    length = given["input_ids"].shape[1]
    assert encoded.sequences["text"].segments["response"] == [length, length + 1, length + 2]
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in given:
            kinds = encoded.model_inputs[key]
            assert kinds[0, :length].equal(given[key][0])
            assert kinds[0, length:].tolist() == [int(name == "PaliGemma")] * 3
    # Read at once, each token is the one that was the most likely when it was said.
    with torch.no_grad():
        logits = subject(name).model(**encoded.model_inputs).logits[0, length - 1 : -1]
    assert logits.argmax(-1).tolist() == list(encoded.sequences["text"].ids[length:])
    trace = capture(subject(name), encoded)
    assert trace.attention[0].shape == (4, length + 3, length + 3)


def test_pictures_for_a_text_model_are_refused(model, tokenizer, picture):
    with pytest.raises(CaptureError, match=r"of type Image.* takes text alone"):
        Subject(model, tokenizer).encode("what is this ?", images=[picture])


@pytest.mark.parametrize("given", ["nowhere.png", None, 3])
def test_what_is_no_picture_is_refused_by_name(pictured, given):
    kind = type(given).__name__
    with pytest.raises(CaptureError, match=rf"'<image> this', pictures of type {kind}: "):
        pictured.encode("<image> this", images=[given])
