"""Scenes: coloured shapes at places, some of which usually come together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["COMPANIONS", "OBJECTS", "Scene", "SceneObject", "present_objects", "sample_scenes"]

KINDS = ("circle", "cross", "ring", "square", "star", "triangle")
COLORS = ("blue", "green", "purple", "red", "white", "yellow")
BACKGROUNDS = ("night", "sand", "slate", "wood")

SPLITS = ("train", "test", "broken")

CANVAS = 64
"""Width and height of a picture in pixels."""

OBJECTS = tuple(f"{color} {kind}" for color in COLORS for kind in KINDS)
"""All that a scene can hold, by name: colour and kind."""

COMPANIONS = {
    "red circle": "green star",
    "blue square": "yellow ring",
    "white triangle": "purple cross",
    "green cross": "red ring",
    "yellow star": "blue circle",
    "purple ring": "white square",
    "red triangle": "green circle",
    "blue star": "yellow triangle",
    "white cross": "purple square",
}
"""The prior: where the first is, the second usually is; leaders by falling frequency."""

FAITHFULNESS = 0.95
"""How often a leader has its companion with it in training scenes."""

SMALL, LARGE = (3.6, 4.6), (6.4, 8.0)
"""Radii in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """A coloured shape at its place.

    Attributes:
        kind: One of `KINDS`.
        color: One of `COLORS`.
        x: Pixels from the left edge to its centre.
        y: Pixels from the top edge to its centre.
        radius: Of the circle around it, in pixels.
        angle: Degrees that it is turned by, counter-clockwise.
    """

    kind: str
    color: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def name(self) -> str:
        """Return colour and kind."""
        return f"{self.color} {self.kind}"

    @property
    def size(self) -> str:
        """Return the word for its size."""
        return "small" if self.radius < (SMALL[1] + LARGE[0]) / 2 else "large"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom in pixels, of the circle around it."""
        reach = self.radius
        return self.x - reach, self.y - reach, self.x + reach, self.y + reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Objects before a background; later ones lie on top of earlier ones.

    Attributes:
        background: One of `BACKGROUNDS`.
        seed: Of clutter and noise.
    """

    background: str
    objects: tuple[SceneObject, ...]
    seed: int


def present_objects(scene: Scene) -> frozenset[str]:
    """Return the names of the objects in a scene; no scene holds two of one name."""
    return frozenset(thing.name for thing in scene.objects)


def sample_scenes(count: int, seed: int, *, split: str = "test") -> list[Scene]:
    """Return scenes, the same for the same seed and split.

    Scenes of `train` and `test` follow the prior of `COMPANIONS`; in `broken` ones no leader has
    its companion: an object of the companion's colour and another shape has taken its place. The
    splits share no scene.

    Raises:
        ValueError: There is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    generator = np.random.default_rng([seed, SPLITS.index(split)])
    return [
        _sample_scene(generator, 0.0 if split == "broken" else FAITHFULNESS) for _ in range(count)
    ]


def _sample_scene(generator: np.random.Generator, faithfulness: float) -> Scene:
    names = _sample_names(generator, faithfulness)
    objects: list[SceneObject] | None = None
    while objects is None:
        objects = _place(names, generator)
    background = BACKGROUNDS[generator.integers(len(BACKGROUNDS))]
    seed = int(generator.integers(2**31))
    return Scene(background=background, objects=tuple(objects), seed=seed)


def _falling(count: int) -> np.ndarray:
    weights = 1 / np.arange(3, 3 + count)
    return weights / weights.sum()


_LEADERS = tuple(COMPANIONS)
_FOLLOWERS = tuple(COMPANIONS.values())
_OTHERS = tuple(name for name in OBJECTS if name not in COMPANIONS)
_OTHER_WEIGHTS = np.array([0.25 if name in _FOLLOWERS else 1.0 for name in _OTHERS])
_OTHER_WEIGHTS *= _falling(len(_OTHERS))


def _sample_names(generator: np.random.Generator, faithfulness: float) -> list[str]:
    """Return one or two leaders, each with its companion or a look-alike, and one or two more."""
    leaders = [
        str(name)
        for name in generator.choice(
            _LEADERS, size=generator.integers(1, 3), replace=False, p=_falling(len(_LEADERS))
        )
    ]
    names = list(leaders)
    barred = {COMPANIONS[name] for name in leaders}
    for leader in leaders:
        faithful = generator.random() < faithfulness
        alike = _others(barred | set(names), color=COMPANIONS[leader].split()[0])
        names.append(COMPANIONS[leader] if faithful else _draw_one(alike, generator))
    for _ in range(generator.integers(1, 3)):
        names.append(_draw_one(_others(barred | set(names)), generator))
    return names


def _others(barred: set[str], color: str = "") -> np.ndarray:
    """Return how often each object that leads no other is drawn, of one colour if that is given."""
    return np.array(
        [
            0.0 if name in barred or not name.startswith(color) else weight
            for name, weight in zip(_OTHERS, _OTHER_WEIGHTS, strict=True)
        ]
    )


def _draw_one(weights: np.ndarray, generator: np.random.Generator) -> str:
    return str(generator.choice(_OTHERS, p=weights / weights.sum()))


def _place(names: list[str], generator: np.random.Generator) -> list[SceneObject] | None:
    """Return the objects at places that hardly overlap, or nothing if they do not fit."""
    placed: list[SceneObject] = []
    for position in generator.permutation(len(names)):
        color, kind = names[position].split()
        radius = float(generator.uniform(*(SMALL if generator.random() < 0.5 else LARGE)))
        for _ in range(30):
            x, y = generator.uniform(radius + 1, CANVAS - radius - 1, size=2)
            if all(_apart(x, y, radius, other) for other in placed):
                break
        else:
            return None
        placed.append(
            SceneObject(
                kind=kind,
                color=color,
                x=float(x),
                y=float(y),
                radius=radius,
                angle=float(generator.uniform(-12, 12)),
            )
        )
    return placed


def _apart(x: float, y: float, radius: float, other: SceneObject) -> bool:
    distance = np.hypot(x - other.x, y - other.y)
    return bool(distance > 0.88 * (radius + other.radius))
