"""The matcher: texts are labelled rightly, it learns, loads, and tells what is there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnscope.models.subjects.checkpoints import write_weights
from attnscope.models.subjects.glimpse import (
    MATCHER_WEIGHTS,
    build_matcher,
    build_matcher_processor,
    caption,
    load_matcher,
    matcher_config,
    mentioned_objects,
    pope_questions,
    present_objects,
    render,
    sample_scenes,
)
from attnscope.models.subjects.glimpse.conversations import picture_values
from attnscope.models.subjects.glimpse.train_matcher import (
    MatcherSettings,
    matcher_optimizers,
    matching_loss,
    pair_captions,
    pair_phrases,
    train_matcher,
)

TINY = MatcherSettings(tower_steps=30, steps=3, tower_batch=4, batch=4, layers=1, hidden=16)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep tiny steps from waiting for threads that others need."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny() -> Any:
    return build_matcher(matcher_config(layers=TINY.layers, hidden=TINY.hidden), seed=0)


def test_phrases_fit_the_scenes_that_hold_their_object() -> None:
    scenes = sample_scenes(6, 1, split="train")
    texts = pair_phrases(scenes, np.random.default_rng(0))
    assert texts.own.tolist() == [1, 1, 1, 0, 0, 0] * 6
    for text, fits in zip(texts.texts, texts.fits, strict=True):
        (name,) = mentioned_objects(text)
        assert fits.bool().tolist() == [name in present_objects(scene) for scene in scenes]


def test_captions_fit_their_own_scene_unless_an_object_was_exchanged() -> None:
    scenes = sample_scenes(5, 1, split="train")
    texts = pair_captions(scenes, np.random.default_rng(0))
    assert texts.own.tolist() == [1, 0] * 5
    assert texts.fits[::2].tolist() == torch.eye(5).tolist()
    assert not texts.fits[1::2].any()
    for scene, right, wrong in zip(scenes, texts.texts[::2], texts.texts[1::2], strict=True):
        assert right == caption(scene)
        assert len(set(mentioned_objects(wrong)) - present_objects(scene)) == 1


def test_both_stages_run_and_the_first_lowers_its_loss() -> None:
    losses = list(train_matcher(tiny(), TINY))
    assert len(losses) == TINY.tower_steps + TINY.steps
    first = losses[: TINY.tower_steps]
    assert sum(first[-4:]) < 0.95 * sum(first[:4])


def test_a_handful_of_texts_can_be_learned_by_heart() -> None:
    model, scenes = tiny(), sample_scenes(4, 1, split="train")
    texts = pair_phrases(scenes, np.random.default_rng(0))
    optimizers = matcher_optimizers(model, 1e-2)
    losses = []
    for _ in range(60):
        seen = model.vision_model(pixel_values=picture_values(scenes)).last_hidden_state
        loss = matching_loss(model, build_matcher_processor(), seen, texts)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_written_weights_load_and_are_the_rounded_ones(tmp_path: Path) -> None:
    model = tiny()
    write_weights(model, build_matcher_processor(), tmp_path / "weights")
    loaded, processor = load_matcher(tmp_path / "weights")
    assert not loaded.training
    assert processor.tokenizer("a red circle")["input_ids"][0] == processor.tokenizer.cls_token_id
    for name, weight in loaded.state_dict().items():
        expected = model.state_dict()[name]
        if expected.is_floating_point():
            expected = expected.bfloat16().float()
        assert torch.equal(weight, expected), name


def test_shipped_weights_tell_what_is_there() -> None:
    assert {path.suffix for path in MATCHER_WEIGHTS.iterdir()} <= {".json", ".safetensors"}
    model: Any
    processor: Any
    model, processor = load_matcher()
    scenes = sample_scenes(20, 90)
    questions = pope_questions(scenes, "random")
    inputs = processor(
        images=[render(scenes[question.scene]) for question in questions],
        text=[question.text for question in questions],
        return_tensors="pt",
    )
    with torch.no_grad():
        matches = model(**inputs).itm_score.argmax(-1) == 1
    right = [bool(m) == (q.answer == "yes") for m, q in zip(matches, questions, strict=True)]
    assert sum(right) / len(right) > 0.75
