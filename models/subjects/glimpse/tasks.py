"""What is asked about a scene and what is right: captions, presence, counts and relations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import Any

import numpy as np

from attnscope.models.subjects.glimpse.scenes import (
    BACKGROUNDS,
    COLORS,
    COMPANIONS,
    KINDS,
    OBJECTS,
    Scene,
    SceneObject,
    present_objects,
)

__all__ = [
    "NUMBERS",
    "RELATIONS",
    "Question",
    "caption",
    "count_questions",
    "describe_prompt",
    "mentioned_objects",
    "presence_question",
    "question_chat",
    "relation_questions",
]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
RELATIONS = ("left of", "right of", "above", "below")
DESCRIBE = "describe the scene ."
CLEAR_DISTANCE = 6.0
"""Pixels by which two objects must differ along an axis to be asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about a scene and its answer, one word."""

    text: str
    answer: str


def describe_prompt() -> list[dict[str, Any]]:
    """Return the chat that asks for a caption of one image.

    >>> [part["type"] for part in describe_prompt()[0]["content"]]
    ['image', 'text']
    """
    return question_chat(DESCRIBE)


def question_chat(text: str) -> list[dict[str, Any]]:
    """Return the chat that asks a question about one image, as processors take it.

    >>> question_chat("is there a red circle ?")[0]["content"][1]
    {'type': 'text', 'text': 'is there a red circle ?'}
    """
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def caption(scene: Scene) -> str:
    """Return the caption of a scene: two objects to a sentence, leaders before their companions.

    Leaders are named from left to right, each followed by its companion if that is there; then
    come the other objects from left to right.
    """
    first, *more = _pairs(in_order(scene))
    sentences = [f"the scene shows {_listed(first)} on {scene.background} ."]
    sentences += [f"there is also {_listed(pair)} ." for pair in more]
    return " ".join(sentences)


def in_order(scene: Scene) -> list[SceneObject]:
    """Return the objects of a scene in the order in which a caption names them."""
    by_name = {thing.name: thing for thing in sorted(scene.objects, key=lambda thing: thing.x)}
    named: dict[str, None] = {}
    for name in by_name:
        if name in COMPANIONS:
            named[name] = None
            if COMPANIONS[name] in by_name:
                named[COMPANIONS[name]] = None
    return [by_name[name] for name in [*named, *(name for name in by_name if name not in named)]]


def _pairs(things: list[SceneObject]) -> list[list[SceneObject]]:
    return [things[start : start + 2] for start in range(0, len(things), 2)]


def _listed(things: Sequence[SceneObject]) -> str:
    return " and ".join(f"a {thing.size} {thing.name}" for thing in things)


def mentioned_objects(text: str) -> list[str]:
    """Return the objects that a text names, in order and with repetitions.

    >>> mentioned_objects("a large red circle and a small green star .")
    ['red circle', 'green star']
    """
    words = text.split()
    pairs = (" ".join(pair) for pair in pairwise(words))
    return [pair for pair in pairs if pair in OBJECTS]


def presence_question(name: str, scene: Scene) -> Question:
    """Return the question whether a scene holds an object."""
    return Question(
        text=f"is there a {name} ?", answer="yes" if name in present_objects(scene) else "no"
    )


def count_questions(scene: Scene) -> list[Question]:
    """Return all questions for how many objects of a kind, of a colour and at all there are."""
    asked = [(_plural(kind), [kind]) for kind in KINDS]
    asked += [(f"{color} objects", [color]) for color in COLORS]
    counts = [
        (words, sum(part in thing.name.split() for thing in scene.objects for part in parts))
        for words, parts in asked
    ]
    return [
        Question(text=f"how many {words} are there ?", answer=NUMBERS[count])
        for words, count in [*counts, ("objects", len(scene.objects))]
    ]


def _plural(kind: str) -> str:
    return kind + ("es" if kind.endswith("s") else "s")


def relation_questions(scene: Scene) -> list[Question]:
    """Return all questions on two objects that lie clearly apart along the axis asked about."""
    return [
        Question(
            text=f"is the {one.name} {relation} the {other.name} ?", answer="yes" if true else "no"
        )
        for one, other in permutations(scene.objects, 2)
        for relation, true in _relations(one, other)
    ]


def _relations(one: SceneObject, other: SceneObject) -> Iterator[tuple[str, bool]]:
    for (before, after), gap in zip(
        (RELATIONS[:2], RELATIONS[2:]), (other.x - one.x, other.y - one.y), strict=True
    ):
        if abs(gap) >= CLEAR_DISTANCE:
            yield before, gap > 0
            yield after, gap < 0


def sample_questions(scene: Scene, generator: np.random.Generator) -> list[Question]:
    """Return what training asks about a scene besides its caption.

    Three objects that are there and three that are not, drawn evenly; one count, every
    second time one that is not zero; four relations.
    """
    present = sorted(present_objects(scene))
    absent = [name for name in OBJECTS if name not in present]
    names = [
        *generator.choice(present, 3, replace=False),
        *generator.choice(absent, 3, replace=False),
    ]
    counts, relations = count_questions(scene), relation_questions(scene)
    if generator.random() < 0.5:
        counts = [question for question in counts if question.answer != NUMBERS[0]]
    chosen = [presence_question(str(name), scene) for name in names]
    chosen.append(counts[generator.integers(len(counts))])
    chosen += [relations[i] for i in generator.integers(len(relations), size=4)]
    return chosen


def vocabulary_sources() -> list[str]:
    """Return texts that hold every word of captions, questions and answers."""
    plurals = " ".join(_plural(kind) for kind in KINDS)
    return [
        DESCRIBE,
        "the scene shows a small and a large on . there is also yes no",
        "is there a ? how many objects are there ? is the",
        plurals,
        " ".join((*KINDS, *COLORS, *BACKGROUNDS, *NUMBERS, *RELATIONS)),
    ]
