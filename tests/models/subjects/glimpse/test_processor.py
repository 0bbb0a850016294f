"""The processor: pixels as trained on, and one image token for each patch that the tower makes."""

from typing import Any

import torch

from attnscope.models.subjects.glimpse import (
    build_processor,
    build_subject,
    describe_prompt,
    render,
    sample_scenes,
    subject_config,
)
from attnscope.models.subjects.glimpse.conversations import picture_values
from attnscope.models.subjects.glimpse.processor import PATCHES


def test_image_tokens_are_as_many_as_the_tower_gives() -> None:
    processor: Any = build_processor()
    model: Any = build_subject(subject_config(tower=1, layers=1, hidden=16, heads=2), seed=0)
    scene = sample_scenes(1, 0)[0]
    text = processor.apply_chat_template(describe_prompt(), add_generation_prompt=True)
    inputs = processor(text=text, images=[render(scene)], return_tensors="pt")
    placeholders = int((inputs["input_ids"] == model.config.image_token_index).sum())
    features = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    assert placeholders == PATCHES == model.config.image_seq_length == len(features[0])
    assert model(**inputs).logits.shape[1] == PATCHES + 7


def test_the_template_writes_what_was_trained_on() -> None:
    chat = [*describe_prompt(), {"role": "assistant", "content": "yes"}]
    assert build_processor().apply_chat_template(chat) == (
        "<bos> <user> <image> describe the scene . <assistant> yes <eos>"
    )


def test_pixels_are_normalised_as_in_training() -> None:
    scene = sample_scenes(1, 4)[0]
    processor: Any = build_processor()
    inputs = processor(text="<image>", images=[render(scene)], return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], picture_values([scene]))
