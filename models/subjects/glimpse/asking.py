"""Asking the subject about many scenes at once, always taking the likeliest token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attnscope.models.subjects.glimpse.drawing import render
from attnscope.models.subjects.glimpse.scenes import Scene
from attnscope.models.subjects.glimpse.tasks import DESCRIBE, question_chat

BATCH = 50


def ask(
    model: Any,
    processor: Any,
    scenes: Sequence[Scene],
    questions: Sequence[str],
) -> list[str]:
    """Return the model's greedy answer to each question about the scene beside it.

    Model and processor are those of `load_subject`, or others that answer chats about one image.

    Raises:
        ValueError: There are not as many scenes as questions.
    """
    if len(scenes) != len(questions):
        raise ValueError(
            f"each question needs its scene; got {len(scenes)} scenes, {len(questions)} questions"
        )
    answers: list[str] = []
    for start in range(0, len(scenes), BATCH):
        part = slice(start, start + BATCH)
        answers += _ask_batch(model, processor, scenes[part], questions[part])
    return answers


def describe(model: Any, processor: Any, scenes: Sequence[Scene]) -> list[str]:
    """Return the model's greedy caption of each scene."""
    return ask(model, processor, scenes, [DESCRIBE] * len(scenes))


@torch.no_grad()
def _ask_batch(
    model: Any,
    processor: Any,
    scenes: Sequence[Scene],
    questions: Sequence[str],
) -> list[str]:
    prompts = [
        processor.apply_chat_template(question_chat(text), add_generation_prompt=True)
        for text in questions
    ]
    inputs = processor(
        text=prompts,
        images=[render(scene) for scene in scenes],
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    produced = model.generate(**inputs, do_sample=False)
    said = produced[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(said, skip_special_tokens=True)
