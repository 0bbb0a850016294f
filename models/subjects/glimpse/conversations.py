"""Training batches: one picture with its caption and many questions, all side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.models.subjects.glimpse.drawing import pixels
from attnscope.models.subjects.glimpse.processor import (
    BOS,
    EOS,
    IMAGE,
    MEAN,
    PAD,
    PATCHES,
    SPREAD,
    vocabulary,
)
from attnscope.models.subjects.glimpse.scenes import Scene, sample_scenes
from attnscope.models.subjects.glimpse.tasks import DESCRIBE, Question, caption, sample_questions

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations:
    """Pictures with all that is said about each, every turn as if it were the only one.

    A sequence is `<bos> <user>`, the image and then turns. A turn sees what stands before all
    turns, and itself, and its positions begin where the image ends: so each is computed as in a
    chat of its own, and the image only once.

    Attributes:
        is_caption: Which labels belong to captions.
    """

    pixel_values: Float[Tensor, "item channel height width"]
    input_ids: Int[Tensor, "item token"]
    position_ids: Int[Tensor, "item token"]
    visible: Bool[Tensor, "item 1 token token"]
    labels: Int[Tensor, "item token"]
    is_caption: Bool[Tensor, "item token"]

    def to(self, device: str) -> Conversations:
        """Return the batch on a device."""
        return Conversations(
            **{name: getattr(self, name).to(device) for name in Conversations.__slots__}
        )


def picture_values(scenes: list[Scene]) -> Float[Tensor, "item channel height width"]:
    """Return pictures as the processor would normalise them."""
    values = torch.from_numpy(np.stack([pixels(scene) for scene in scenes]))
    return (values.float() / 255 - MEAN) / SPREAD


def stream_scenes(seed: int, batch: int, start: int) -> Iterator[list[Scene]]:
    """Yield the batches of training scenes of a seed without end, from the one numbered `start`."""
    for number in count(start):
        yield sample_scenes(batch, seed * 1_000_003 + number, split="train")


def pack(scenes: list[Scene], generator: np.random.Generator) -> Conversations:
    """Return a batch of scenes with their captions and questions."""
    rows = [_turns(scene, generator) for scene in scenes]
    prefix = [BOS, "<user>", *[IMAGE] * PATCHES]
    length = len(prefix) + max(sum(len(prompt) + len(said) for prompt, said in row) for row in rows)
    size = (len(scenes), length)
    tokens = vocabulary()
    ids = np.full(size, tokens[PAD])
    labels = np.full(size, IGNORED)
    positions, turns = np.zeros(size, int), np.full(size, -1)
    for item, row in enumerate(rows):
        start = len(prefix)
        ids[item, :start] = [tokens[word] for word in prefix]
        positions[item, :start], turns[item, :start] = np.arange(start), 0
        for number, (prompt, said) in enumerate(row, start=1):
            stop = start + len(prompt) + len(said)
            ids[item, start:stop] = [tokens[word] for word in (*prompt, *said)]
            labels[item, stop - len(said) : stop] = ids[item, stop - len(said) : stop]
            positions[item, start:stop] = len(prefix) + np.arange(stop - start)
            turns[item, start:stop] = number
            start = stop
    owner = torch.from_numpy(turns)
    return Conversations(
        pixel_values=picture_values(scenes),
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        visible=_visible(owner)[:, None],
        labels=torch.from_numpy(labels),
        is_caption=owner == 1,
    )


def _visible(owner: Int[Tensor, "item token"]) -> Bool[Tensor, "item token token"]:
    """Return which token sees which: itself and what precedes it in its turn and the prefix."""
    same = owner[:, :, None] == owner[:, None, :]
    from_prefix = owner[:, None, :] == 0
    length = owner.shape[1]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    return (same | from_prefix) & past


def _turns(scene: Scene, generator: np.random.Generator) -> list[tuple[list[str], list[str]]]:
    asked = [Question(text=DESCRIBE, answer=caption(scene)), *sample_questions(scene, generator)]
    return [([*turn.text.split(), "<assistant>"], [*turn.answer.split(), EOS]) for turn in asked]
