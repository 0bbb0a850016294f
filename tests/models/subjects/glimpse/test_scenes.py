"""Scenes: the same for the same seed, legible, and true to the prior or against it."""

from itertools import combinations
from math import hypot

import pytest

from attnscope.models.subjects.glimpse import COMPANIONS, present_objects, sample_scenes
from attnscope.models.subjects.glimpse.scenes import CANVAS, Scene


def companion_share(scenes: list[Scene]) -> float:
    kept = [
        COMPANIONS[name] in present_objects(scene)
        for scene in scenes
        for name in present_objects(scene)
        if name in COMPANIONS
    ]
    return sum(kept) / len(kept)


def test_a_seed_gives_the_same_scenes_and_more_of_them_begin_alike() -> None:
    assert sample_scenes(5, 3) == sample_scenes(8, 3)[:5]
    assert sample_scenes(5, 3) != sample_scenes(5, 4)
    assert sample_scenes(5, 3, split="train") != sample_scenes(5, 3, split="test")


def test_an_unknown_split_is_named_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="no split 'valid'; there are train, test, broken"):
        sample_scenes(1, 0, split="valid")


@pytest.mark.parametrize("split", ["train", "test", "broken"])
def test_scenes_hold_three_to_six_different_objects_inside_the_canvas(split: str) -> None:
    for scene in sample_scenes(60, 1, split=split):
        assert 3 <= len(scene.objects) <= 6
        assert len(present_objects(scene)) == len(scene.objects)
        for thing in scene.objects:
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= CANVAS
            assert 0 <= top < bottom <= CANVAS


def test_objects_hardly_overlap() -> None:
    for scene in sample_scenes(60, 1):
        for one, other in combinations(scene.objects, 2):
            assert hypot(one.x - other.x, one.y - other.y) > 0.88 * (one.radius + other.radius)


def test_leaders_have_their_companions_unless_the_prior_is_broken() -> None:
    assert companion_share(sample_scenes(300, 2, split="train")) > 0.9
    assert companion_share(sample_scenes(300, 2, split="test")) > 0.9
    assert companion_share(sample_scenes(300, 2, split="broken")) == 0


def test_in_a_broken_scene_a_look_alike_stands_where_the_companion_would() -> None:
    for scene in sample_scenes(100, 2, split="broken"):
        present = present_objects(scene)
        for leader in present & set(COMPANIONS):
            color = COMPANIONS[leader].split()[0]
            assert any(name.startswith(color) for name in present - set(COMPANIONS))
