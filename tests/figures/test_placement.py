from hypothesis import given
from hypothesis import strategies as st

from attnscope.figures.placement import Place, place_labels

AREA = (200.0, 100.0)
GAP = 6.0
Box = tuple[float, float, float, float]


def box(point: tuple[float, float], size: tuple[float, float], place: Place) -> Box:
    left = point[0] + place.horizontal * size[0] + GAP * place.shift[0]
    bottom = point[1] + place.vertical * size[1] + GAP * place.shift[1]
    return left, bottom, left + size[0], bottom + size[1]


@given(
    st.lists(
        st.tuples(st.floats(0, 200), st.floats(0, 100), st.floats(5, 60), st.floats(5, 20)),
        max_size=12,
    )
)
def test_no_label_covers_another_one_a_point_or_the_edge(
    labels: list[tuple[float, float, float, float]],
) -> None:
    points = [(x, y) for x, y, _, _ in labels]
    sizes = [(width, height) for _, _, width, height in labels]
    places = place_labels(points, sizes, AREA, GAP)
    boxes = [
        box(point, size, place)
        for point, size, place in zip(points, sizes, places, strict=True)
        if place is not None
    ]
    for i, (left, bottom, right, top) in enumerate(boxes):
        assert min(left, bottom) >= 0
        assert (right, top) <= AREA or (right <= AREA[0] and top <= AREA[1])
        for other in boxes[:i]:
            apart = right <= other[0] or other[2] <= left or top <= other[1] or other[3] <= bottom
            assert apart
        for x, y in points:
            assert not (left < x < right and bottom < y < top)


def test_a_label_without_room_is_left_out() -> None:
    assert place_labels([(5.0, 5.0)], [(50.0, 50.0)], (20.0, 20.0)) == [None]
