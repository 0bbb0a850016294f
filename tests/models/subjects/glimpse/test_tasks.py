"""Captions and questions: what they say of a scene can be read back and is so."""

import numpy as np
import pytest

from attnscope.models.subjects.glimpse import (
    COMPANIONS,
    Scene,
    SceneObject,
    build_processor,
    caption,
    count_questions,
    mentioned_objects,
    present_objects,
    relation_questions,
    sample_scenes,
)
from attnscope.models.subjects.glimpse.tasks import sample_questions


@pytest.fixture
def scene() -> Scene:
    places = {
        "green star": (10.0, 50.0),
        "white ring": (20.0, 20.0),
        "red circle": (50.0, 48.0),
        "blue ring": (52.0, 10.0),
    }
    objects = tuple(
        SceneObject(
            color=color, kind=kind, x=x, y=y, radius=8.0 if kind == "ring" else 4.0, angle=0.0
        )
        for (color, kind), (x, y) in ((name.split(), place) for name, place in places.items())
    )
    return Scene(background="sand", objects=objects, seed=0)


def test_a_caption_names_leader_companion_and_then_the_rest_from_left_to_right(
    scene: Scene,
) -> None:
    assert caption(scene) == (
        "the scene shows a small red circle and a small green star on sand . "
        "there is also a large white ring and a large blue ring ."
    )


@pytest.mark.parametrize("split", ["test", "broken"])
def test_a_caption_names_each_object_once(split: str) -> None:
    for scene in sample_scenes(80, 5, split=split):
        said = mentioned_objects(caption(scene))
        assert sorted(said) == sorted(present_objects(scene))
        assert 2 <= caption(scene).count(".") <= 3
        leaders = [name in COMPANIONS for name in said]
        assert leaders[0]


def test_counts_are_of_kinds_colours_and_all(scene: Scene) -> None:
    answers = {question.text: question.answer for question in count_questions(scene)}
    assert answers["how many rings are there ?"] == "two"
    assert answers["how many crosses are there ?"] == "zero"
    assert answers["how many green objects are there ?"] == "one"
    assert answers["how many objects are there ?"] == "four"
    assert len(answers) == 13


def test_relations_are_asked_only_where_they_are_clear(scene: Scene) -> None:
    answers = {question.text: question.answer for question in relation_questions(scene)}
    assert answers["is the green star left of the red circle ?"] == "yes"
    assert answers["is the red circle left of the green star ?"] == "no"
    assert answers["is the blue ring above the white ring ?"] == "yes"
    # They differ by two pixels from top to bottom, and so do the other two from left to right.
    assert "is the green star above the red circle ?" not in answers
    assert "is the blue ring right of the red circle ?" not in answers
    assert sorted(answers.values()).count("yes") * 2 == len(answers)


def test_training_asks_for_as_many_present_as_absent_objects(scene: Scene) -> None:
    asked = sample_questions(scene, np.random.default_rng(0))
    presence = [question.answer for question in asked if question.text.startswith("is there")]
    assert sorted(presence) == ["no"] * 3 + ["yes"] * 3
    assert sum(question.text.startswith("how many") for question in asked) == 1
    assert len(asked) == 11


def test_every_word_of_the_task_is_in_the_vocabulary() -> None:
    tokenizer = build_processor().tokenizer
    generator = np.random.default_rng(0)
    for scene in sample_scenes(60, 6, split="train"):
        texts = [caption(scene)]
        texts += [f"{q.text} {q.answer}" for q in sample_questions(scene, generator)]
        for text in texts:
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
