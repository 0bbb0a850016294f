"""Segments are runs in order, without overlap."""

import pytest

from attnscope.traces import Segment, Segments, TokenSequence, TraceError


def test_a_name_that_occurs_twice_gives_the_positions_of_both():
    runs = Segments(
        (
            Segment(name="image", start=0, stop=4, grid=(2, 2)),
            Segment(name="prompt", start=5, stop=6),
            Segment(name="image", start=6, stop=8),
        )
    )
    assert runs["image"] == [0, 1, 2, 3, 6, 7]
    assert runs.names == ("image", "prompt")
    assert "image" in runs
    assert "response" not in runs


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(TraceError, match=r"no image segment; this sequence has \['prompt'\]"):
        Segments((Segment(name="prompt", start=0, stop=1),))["image"]


@pytest.mark.parametrize(("start", "stop"), [(2, 2), (3, 1), (-1, 2)])
def test_an_empty_run_is_refused(start, stop):
    with pytest.raises(TraceError, match=f"spans {start} to {stop}; it needs 0 <= start < stop"):
        Segment(name="prompt", start=start, stop=stop)


def test_a_grid_that_does_not_fill_its_run_is_refused():
    with pytest.raises(TraceError, match="holds 5 positions, its grid 2 x 2"):
        Segment(name="image", start=0, stop=5, grid=(2, 2))


def test_runs_that_overlap_are_refused():
    first, second = Segment(name="a", start=0, stop=3), Segment(name="b", start=2, stop=4)
    with pytest.raises(TraceError, match=r"'a' \(0 to 3\) and 'b' \(2 to 4\) overlap"):
        Segments((first, second))


def test_a_sequence_refuses_ids_and_segments_that_do_not_fit():
    with pytest.raises(TraceError, match="sequence 'text' has 2 tokens but 1 ids"):
        TokenSequence(name="text", tokens=("a", "b"), ids=(1,))
    with pytest.raises(TraceError, match="segment 'prompt' ends at 3, sequence 'text' at 2"):
        TokenSequence(
            name="text",
            tokens=("a", "b"),
            segments=Segments((Segment(name="prompt", start=0, stop=3),)),
        )
