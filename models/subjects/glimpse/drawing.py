"""Pictures of scenes: drawn four times too large, then reduced, so that edges are smooth."""

from __future__ import annotations

from math import cos, pi, sin
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from attnscope.models.subjects.glimpse.scenes import CANVAS, Scene, SceneObject

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["pixels", "render"]

SCALE = 4
NOISE = 14.0
"""Standard deviation of the noise, in the 256 steps of brightness."""

PAINT = {
    "blue": (52, 92, 226),
    "green": (48, 176, 72),
    "purple": (172, 62, 204),
    "red": (222, 48, 44),
    "white": (244, 244, 240),
    "yellow": (246, 208, 44),
}
GROUND = {
    "night": (26, 28, 40),
    "sand": (166, 146, 116),
    "slate": (94, 104, 114),
    "wood": (92, 62, 42),
}
CLUTTER = range(5, 10)

Points = list[tuple[float, float]]


def render(scene: Scene) -> Image:
    """Return the picture of a scene: RGB, `CANVAS` x `CANVAS` pixels, the same at every call."""
    from PIL import Image, ImageDraw

    generator = np.random.default_rng(scene.seed)
    ground = GROUND[scene.background]
    canvas = Image.new("RGB", (CANVAS * SCALE, CANVAS * SCALE), ground)
    brush = ImageDraw.Draw(canvas)
    _scatter(brush, ground, generator)
    for thing in scene.objects:
        _draw(brush, thing)
    small = np.asarray(canvas.reduce(SCALE), dtype=np.float32)
    light = _light(generator)[..., None] + generator.normal(0, NOISE, small.shape)
    return Image.fromarray(np.clip(small + light, 0, 255).astype(np.uint8))


def pixels(scene: Scene) -> UInt8[np.ndarray, "3 height width"]:
    """Return the picture of a scene with its channels first."""
    return np.ascontiguousarray(np.asarray(render(scene)).transpose(2, 0, 1))


def _light(generator: np.random.Generator) -> np.ndarray:
    """Return a slope of brightness across the picture."""
    down, right = generator.uniform(-16, 16, size=2)
    steps = np.linspace(-0.5, 0.5, CANVAS)
    return down * steps[:, None] + right * steps[None, :]


def _scatter(
    brush: ImageDraw, ground: tuple[int, int, int], generator: np.random.Generator
) -> None:
    """Draw what is no object: grains and scratches a little lighter or darker than the ground."""
    for _ in range(generator.integers(CLUTTER.start, CLUTTER.stop)):
        shift = generator.choice([-1, 1]) * generator.uniform(14, 30)
        paint = tuple(int(np.clip(channel + shift, 0, 255)) for channel in ground)
        x, y = generator.uniform(0, CANVAS * SCALE, size=2)
        turn, reach = generator.uniform(0, pi), generator.uniform(1.5, 5) * SCALE
        if generator.random() < 0.5:
            brush.line(
                [(x, y), (x + reach * cos(turn), y + reach * sin(turn))], fill=paint, width=SCALE
            )
        else:
            grain = reach / 3
            brush.ellipse([x - grain, y - grain, x + grain, y + grain], fill=paint)


def _draw(brush: ImageDraw, thing: SceneObject) -> None:
    paint = PAINT[thing.color]
    if thing.kind in ("circle", "ring"):
        box = [edge * SCALE for edge in _round_box(thing)]
        if thing.kind == "circle":
            brush.ellipse(box, fill=paint)
        else:
            brush.ellipse(box, outline=paint, width=round(thing.radius * 0.42 * SCALE))
        return
    brush.polygon([_turned(point, thing) for point in _OUTLINES[thing.kind]], fill=paint)


def _round_box(thing: SceneObject) -> tuple[float, float, float, float]:
    reach = thing.radius * 0.92
    return thing.x - reach, thing.y - reach, thing.x + reach, thing.y + reach


def _turned(point: tuple[float, float], thing: SceneObject) -> tuple[float, float]:
    angle = -thing.angle * pi / 180
    right, down = point
    x = right * cos(angle) - down * sin(angle)
    y = right * sin(angle) + down * cos(angle)
    return (thing.x + thing.radius * x) * SCALE, (thing.y + thing.radius * y) * SCALE


def _spokes(radii: list[float]) -> Points:
    """Return points around the centre, the first one straight above it."""
    step = 2 * pi / len(radii)
    return [(radius * sin(i * step), -radius * cos(i * step)) for i, radius in enumerate(radii)]


_HALF = 0.78
_ARM = 0.27
_OUTLINES: dict[str, Points] = {
    "square": [(-_HALF, -_HALF), (_HALF, -_HALF), (_HALF, _HALF), (-_HALF, _HALF)],
    "triangle": _spokes([1.0, 1.0, 1.0]),
    "star": _spokes([1.0, 0.42] * 5),
    "cross": [
        (-_ARM, -0.95), (_ARM, -0.95), (_ARM, -_ARM), (0.95, -_ARM), (0.95, _ARM), (_ARM, _ARM),
        (_ARM, 0.95), (-_ARM, 0.95), (-_ARM, _ARM), (-0.95, _ARM), (-0.95, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip
"""Outlines in units of the radius: right and down of the centre."""
