"""`place_labels`: where labels of points go so that none covers another."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PLACES", "Place", "place_labels"]


@dataclass(frozen=True, slots=True)
class Place:
    """A side of a point on which its label may stand.

    Attributes:
        name: The side as plotly names it.
        horizontal: The label's left edge, in label widths from the point.
        vertical: The label's lower edge, in label heights from the point.
        shift: The gap to the point, right and up, in gaps.
    """

    name: str
    horizontal: float
    vertical: float
    shift: tuple[int, int]


PLACES = (
    Place("top center", -0.5, 0.0, (0, 1)),
    Place("middle right", 0.0, -0.5, (1, 0)),
    Place("middle left", -1.0, -0.5, (-1, 0)),
    Place("bottom center", -0.5, -1.0, (0, -1)),
)

Box = tuple[float, float, float, float]


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    area: tuple[float, float],
    gap: float = 6.0,
) -> list[Place | None]:
    """Return the first free side of each point, None where its label would cover something.

    A label covers no point, no other label and no edge. Earlier points choose first.

    Args:
        points: Where the points stand, in the unit of the area, upwards.
        sizes: Width and height of each label.
        area: Width and height of what is drawn on.
        gap: Distance between a point and its label; half of it is kept free around each point.

    Example:
        >>> twice = [(50.0, 50.0), (50.0, 50.0)]
        >>> [p and p.name for p in place_labels(twice, [(20.0, 10.0)] * 2, (100.0, 100.0))]
        ['top center', 'middle right']
    """
    half = gap / 2
    taken: list[Box] = [(x - half, y - half, x + half, y + half) for x, y in points]
    chosen: list[Place | None] = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        boxes = {place: _box((x, y), (width, height), place, gap) for place in PLACES}
        free = (
            p
            for p, box in boxes.items()
            if _inside(box, area) and not any(_overlap(box, t) for t in taken)
        )
        place = next(free, None)
        if place is not None:
            taken.append(boxes[place])
        chosen.append(place)
    return chosen


def _box(point: tuple[float, float], size: tuple[float, float], place: Place, gap: float) -> Box:
    left = point[0] + place.horizontal * size[0] + place.shift[0] * gap
    bottom = point[1] + place.vertical * size[1] + place.shift[1] * gap
    return left, bottom, left + size[0], bottom + size[1]


def _inside(box: Box, area: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= area[0] and box[3] <= area[1]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
