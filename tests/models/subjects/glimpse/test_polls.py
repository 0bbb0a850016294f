"""POPE's polls: balanced, true, and with the absent objects that their kind calls for."""

import pytest

from attnscope.models.subjects.glimpse import (
    COMPANIONS,
    pope_questions,
    present_objects,
    sample_scenes,
)
from attnscope.models.subjects.glimpse.polls import training_frequencies

SCENES = sample_scenes(60, 8, split="broken")


@pytest.mark.parametrize("kind", ["random", "popular", "adversarial"])
def test_a_poll_asks_three_present_and_three_absent_objects_of_each_scene(kind: str) -> None:
    questions = pope_questions(SCENES, kind)
    assert len(questions) == 6 * len(SCENES)
    for index, scene in enumerate(SCENES):
        here = [question for question in questions if question.scene == index]
        assert [question.answer for question in here] == ["yes"] * 3 + ["no"] * 3
        assert len({question.object for question in here}) == 6
        for question in here:
            assert (question.object in present_objects(scene)) == (question.answer == "yes")
            assert question.text == f"is there a {question.object} ?"
            assert question.chat[0]["content"][1]["text"] == question.text


def test_all_polls_ask_for_the_same_present_objects() -> None:
    present = [
        [q.object for q in pope_questions(SCENES, kind) if q.answer == "yes"]
        for kind in ("random", "popular", "adversarial")
    ]
    assert present[0] == present[1] == present[2]


def test_popular_absent_objects_are_the_most_frequent_ones() -> None:
    frequency, _ = training_frequencies()
    for question in pope_questions(SCENES, "popular"):
        if question.answer == "no":
            present = present_objects(SCENES[question.scene])
            more = [name for name in frequency if frequency[name] > frequency[question.object]]
            assert len([name for name in more if name not in present]) < 3


def test_adversarial_absent_objects_are_mostly_missing_companions() -> None:
    def share(kind: str) -> float:
        asked = pope_questions(SCENES, kind)
        missing = [
            {COMPANIONS[name] for name in present_objects(scene) & set(COMPANIONS)}
            for scene in SCENES
        ]
        found = sum(q.object in missing[q.scene] for q in asked if q.answer == "no")
        return found / sum(len(names) for names in missing)

    assert share("adversarial") > 0.9 > 0.3 > share("random")


def test_an_unknown_poll_is_named_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="no poll 'rare'; there are random, popular, adv"):
        pope_questions(SCENES, "rare")
