"""The figures of the small LLaVA: perfect answers give perfect figures, and blind ones do not."""

from collections.abc import Sequence

from attnscope.models.subjects.glimpse import (
    COMPANIONS,
    Scene,
    caption,
    count_questions,
    present_objects,
    relation_questions,
    sample_scenes,
)
from attnscope.models.subjects.glimpse.tasks import DESCRIBE, presence_question
from benchmarks.glimpse import examples, figures

SCENES = sample_scenes(12, 3, split="broken")


def knowing(scenes: Sequence[Scene], questions: Sequence[str]) -> list[str]:
    return [answer(scene, text) for scene, text in zip(scenes, questions, strict=True)]


def answer(scene: Scene, text: str) -> str:
    if text == DESCRIBE:
        return caption(scene)
    asked = [*count_questions(scene), *relation_questions(scene)]
    asked.append(presence_question(text.removeprefix("is there a ").removesuffix(" ?"), scene))
    return next(question.answer for question in asked if question.text == text)


def believing(scenes: Sequence[Scene], questions: Sequence[str]) -> list[str]:
    """Say yes to everything, and of each leader that its companion is with it."""
    return [
        " ".join(f"a {COMPANIONS[name]}" for name in present_objects(scene) & set(COMPANIONS))
        if text == DESCRIBE
        else "yes"
        for scene, text in zip(scenes, questions, strict=True)
    ]


def test_one_who_knows_makes_nothing_up() -> None:
    found = figures(knowing, SCENES)
    assert found["captions"]["chair_i"] == [0, 0, 0]
    assert found["captions"]["f1"] == [1, 1, 1]
    assert found["captions"]["made_up"] == 0
    assert [poll["f1"][0] for poll in found["polls"].values()] == [1, 1, 1]
    assert found["count_accuracy"] == found["relation_accuracy"] == 1


def test_one_who_believes_in_companions_makes_up_nothing_else() -> None:
    found = figures(believing, SCENES)
    assert found["captions"]["chair_i"][0] == found["captions"]["companions_of_made_up"] == 1
    assert found["captions"]["recall"][0] == 0
    for poll in found["polls"].values():
        assert (poll["accuracy"][0], poll["yes_ratio"][0]) == (0.5, 1)
    assert found["count_accuracy"] == 0


def test_examples_put_what_is_not_there_in_bold() -> None:
    assert "**" not in examples(knowing, SCENES)
    assert examples(believing, SCENES[:1]).startswith("1. a **")
