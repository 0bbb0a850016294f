"""Pictures: the same at every call, with each object in its place and in its paint."""

import numpy as np
import pytest

from attnscope.models.subjects.glimpse import Scene, SceneObject, render, sample_scenes
from attnscope.models.subjects.glimpse.drawing import GROUND, PAINT, pixels
from attnscope.models.subjects.glimpse.scenes import CANVAS


def lone(kind: str, color: str = "red") -> Scene:
    thing = SceneObject(kind=kind, color=color, x=40.0, y=20.0, radius=8.0, angle=0.0)
    return Scene(background="night", objects=(thing,), seed=3)


def test_a_scene_is_drawn_the_same_at_every_call() -> None:
    scene = sample_scenes(1, 0)[0]
    picture = render(scene)
    assert (picture.size, picture.mode) == ((CANVAS, CANVAS), "RGB")
    assert picture.tobytes() == render(scene).tobytes()
    np.testing.assert_array_equal(pixels(scene), np.asarray(picture).transpose(2, 0, 1))


@pytest.mark.parametrize("color", PAINT)
def test_an_object_is_painted_in_its_colour(color: str) -> None:
    middle = pixels(lone("square", color))[:, 17:24, 37:44].reshape(3, -1).mean(1)
    np.testing.assert_allclose(middle, PAINT[color], atol=16)


@pytest.mark.parametrize("kind", ["circle", "cross", "ring", "square", "star", "triangle"])
def test_an_object_fills_its_box_and_nothing_else(kind: str) -> None:
    picture = pixels(lone(kind)).astype(float)
    red = picture[0] > 150
    rows, columns = np.nonzero(red)
    assert columns.min() >= 31
    assert columns.max() <= 48
    assert rows.min() >= 11
    assert rows.max() <= 28
    assert (columns.max() - columns.min()) > 10
    ground = picture[:, 40:, :24].reshape(3, -1).mean(1)
    np.testing.assert_allclose(ground, GROUND["night"], atol=20)


def test_a_ring_is_hollow_and_a_circle_is_not() -> None:
    ring, circle = (pixels(lone(kind))[0, 19:22, 39:42].mean() for kind in ("ring", "circle"))
    assert ring < 80 < 180 < circle
