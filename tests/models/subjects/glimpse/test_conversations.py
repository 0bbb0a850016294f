"""Packed turns: each is computed as if it were the only one of its chat."""

from typing import Any

import numpy as np
import torch

from attnscope.models.subjects.glimpse import (
    build_processor,
    build_subject,
    caption,
    render,
    sample_scenes,
    subject_config,
)
from attnscope.models.subjects.glimpse.conversations import IGNORED, pack, stream_scenes
from attnscope.models.subjects.glimpse.processor import PATCHES

PREFIX = PATCHES + 2


def test_a_packed_turn_gives_the_logits_of_a_chat_of_its_own() -> None:
    model = build_subject(subject_config(tower=1, layers=2, hidden=16, heads=2), seed=0).eval()
    processor: Any = build_processor()
    scenes = sample_scenes(2, 1)
    batch = pack(scenes, np.random.default_rng(0))
    ends = (batch.input_ids[1] == processor.tokenizer.eos_token_id).nonzero().flatten() + 1
    starts = [PREFIX, *ends[:-1].tolist()]
    with torch.no_grad():
        packed = model(
            input_ids=batch.input_ids,
            pixel_values=batch.pixel_values,
            attention_mask=batch.visible,
            position_ids=batch.position_ids,
        ).logits[1]
        for start, stop in zip(starts, ends.tolist(), strict=True):
            words = processor.tokenizer.decode(batch.input_ids[1, start:stop])
            inputs = processor(
                text=f"<bos> <user> <image> {words}",
                images=[render(scenes[1])],
                return_tensors="pt",
            )
            alone = model(**inputs).logits[0, PREFIX:]
            torch.testing.assert_close(packed[start:stop], alone, atol=1e-5, rtol=1e-4)


def test_labels_are_the_answers_alone() -> None:
    processor, scenes = build_processor(), sample_scenes(1, 2)
    batch = pack(scenes, np.random.default_rng(0))
    said = batch.labels[0] != IGNORED
    assert torch.equal(batch.labels[0][said], batch.input_ids[0][said])
    captions = processor.tokenizer.decode(batch.labels[0][said & batch.is_caption[0]])
    assert captions == f"{caption(scenes[0])} <eos>"
    words = processor.tokenizer.decode(batch.labels[0][said & ~batch.is_caption[0]])
    assert words.count("<eos>") == 11
    assert "<assistant>" not in words


def test_a_stream_goes_on_from_any_batch() -> None:
    whole = stream_scenes(3, batch=2, start=0)
    next(whole)
    assert next(whole) == next(stream_scenes(3, batch=2, start=1))
