"""POPE's polls: is there such an object? Half of the questions are right to be answered yes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np

from attnscope.models.subjects.glimpse.scenes import OBJECTS, Scene, present_objects, sample_scenes
from attnscope.models.subjects.glimpse.tasks import presence_question, question_chat

__all__ = ["POLLS", "PopeQuestion", "pope_questions"]

POLLS = ("random", "popular", "adversarial")
PER_ANSWER = 3
"""Questions per scene with the answer yes, and as many with no: six in all, as in POPE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopeQuestion:
    """One question of a poll.

    Attributes:
        scene: Index of its scene among those that were given.
        object: What is asked about.
        answer: yes or no.
    """

    scene: int
    object: str
    text: str
    answer: str

    @property
    def chat(self) -> list[dict[str, Any]]:
        """Return the chat that asks it about the scene's picture."""
        return question_chat(self.text)


def pope_questions(scenes: Sequence[Scene], kind: str) -> list[PopeQuestion]:
    """Return six questions on each scene: three objects that are there, three that are not.

    As POPE (arXiv 2305.10355, section 5.1) chooses absent objects: `random` ones; the most
    frequent ones (`popular`); those that most often come together with what is there
    (`adversarial`). Frequencies are those of training scenes (our reading: the polled scenes'
    own would not know of the prior in scenes that break it). The objects that are there are the
    same ones in all three polls.

    Raises:
        ValueError: There is no such poll.
    """
    if kind not in POLLS:
        raise ValueError(f"no poll {kind!r}; there are {', '.join(POLLS)}")
    return [
        question
        for index, scene in enumerate(scenes)
        for question in _questions_on(scene, index, kind)
    ]


def _questions_on(scene: Scene, index: int, kind: str) -> list[PopeQuestion]:
    generator = np.random.default_rng(scene.seed)
    present = sorted(present_objects(scene))
    chosen = [str(name) for name in generator.choice(present, PER_ANSWER, replace=False)]
    absent = _ranked_absent(present, kind, generator)[:PER_ANSWER]
    asked = [(name, presence_question(name, scene)) for name in (*chosen, *absent)]
    return [
        PopeQuestion(scene=index, object=name, text=question.text, answer=question.answer)
        for name, question in asked
    ]


def _ranked_absent(present: list[str], kind: str, generator: np.random.Generator) -> list[str]:
    absent = [name for name in OBJECTS if name not in present]
    if kind == "random":
        return [str(name) for name in generator.permutation(absent)]
    frequency, together = training_frequencies()
    if kind == "popular":
        return sorted(absent, key=lambda name: -frequency[name])
    return sorted(absent, key=lambda name: -sum(together[here, name] for here in present))


@cache
def training_frequencies(count: int = 4000) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Return how many training scenes hold each object, and each ordered pair of objects."""
    held = [sorted(present_objects(scene)) for scene in sample_scenes(count, 0, split="train")]
    return (
        Counter(name for names in held for name in names),
        Counter(pair for names in held for pair in permutations(names, 2)),
    )
