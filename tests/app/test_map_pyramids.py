import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnscope.app import map_pyramids
from attnscope.app.map_choice import HeadGroup, MapChoice
from attnscope.app.map_pyramids import SharedPyramid, shared_pyramid, trim
from attnscope.attention import SoftmaxAttention
from attnscope.figures import TilePyramid, maximum, pyramid_path
from attnscope.traces import Observation, Site, TokenSequence, Trace

LENGTH = 5000
STACK = "layers"


def save_trace(path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(2, LENGTH, 4, generator=generator) for _ in range(2))
    text = TokenSequence(name="text", tokens=tuple(map(str, range(LENGTH))))
    seen = Observation(
        site=Site(stack=STACK, layer=0, path="layers.0"),
        attention=SoftmaxAttention(query, key),
        queries=text,
        keys=text,
    )
    Trace(observations=[seen], sequences={"text": text}, main_sequence="text").save(path)


@pytest.fixture
def choice(tmp_path: Path) -> MapChoice:
    path = tmp_path / "long.safetensors"
    save_trace(path, 0)
    return MapChoice(
        quantity="attention", heads=HeadGroup(path=path, stack=STACK, layer=0, heads=(1,))
    )


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_idle(shared: SharedPyramid) -> bool:
    return not shared._running.locked()


def test_the_coarse_levels_are_filled_once_in_the_background(choice: MapChoice) -> None:
    shared = SharedPyramid(choice)
    assert shared.is_filling
    shared.wait()
    until(lambda: shared.is_complete and is_idle(shared))
    assert shared.path == pyramid_path(choice.heads.path, choice.key)
    assert shared.path.is_file()
    assert (shared.problem, shared.note, shared.is_filling) == ("", "", False)
    assert SharedPyramid(choice).is_complete


def test_a_pass_that_is_stopped_keeps_what_it_found(
    choice: MapChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedPyramid(choice)
    fill = TilePyramid.fill

    def stopping(self: TilePyramid, stripe: int) -> None:
        fill(self, stripe)
        shared.stop()

    with monkeypatch.context() as patch:
        patch.setattr(TilePyramid, "fill", stopping)
        shared.wait()
        until(lambda: shared.is_stopped and is_idle(shared))
    assert SharedPyramid(choice).pyramid.missing == [1, 2]
    shared.resume()
    until(lambda: shared.is_complete and is_idle(shared))
    assert SharedPyramid(choice).is_complete


def test_a_pass_that_nobody_waits_for_ends(
    choice: MapChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_pyramids, "_PATIENCE", -1.0)
    shared = SharedPyramid(choice)
    shared.wait()
    until(lambda: is_idle(shared))
    assert shared.pyramid.missing == [1, 2]
    monkeypatch.setattr(map_pyramids, "_PATIENCE", 60.0)
    shared.wait()
    until(lambda: shared.is_complete and is_idle(shared))


def test_the_pyramid_of_a_replaced_trace_is_built_anew(choice: MapChoice) -> None:
    first = shared_pyramid(choice)
    first.wait()
    until(lambda: first.is_complete and is_idle(first))
    save_trace(choice.heads.path, 1)
    second = shared_pyramid(choice)
    assert second is not first
    assert second.path == first.path
    assert not second.is_complete
    second.wait()
    until(lambda: second.is_complete and is_idle(second))
    own, other = (one.tile((5, 0, 0), maximum).nan_to_num() for one in (first, second))
    assert not torch.equal(own, other)


def test_where_nothing_can_be_written_the_levels_are_kept_in_memory(choice: MapChoice) -> None:
    shared = SharedPyramid(choice)
    shared.path.parent.write_text("a file where the folder should be")
    shared.wait()
    until(lambda: shared.is_complete and is_idle(shared))
    assert "kept in memory alone" in shared.note
    assert not shared.problem


def test_a_map_that_cannot_be_computed_says_why(
    choice: MapChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: TilePyramid, stripe: int) -> None:
        raise RuntimeError(f"stripe {stripe} is broken")

    monkeypatch.setattr(TilePyramid, "fill", failing)
    shared = SharedPyramid(choice)
    shared.wait()
    until(lambda: is_idle(shared))
    assert shared.problem == "The coarse levels cannot be computed: stripe 0 is broken"
    assert not shared.is_filling


def test_tiles_are_computed_once_for_all(
    choice: MapChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedPyramid(choice)
    first = shared.tile((1, 0, 0), maximum)

    def never(self: TilePyramid, *_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(TilePyramid, "tile", never)
    assert SharedPyramid(choice).tile((1, 0, 0), maximum) is first


def test_a_window_is_put_together_from_tiles(choice: MapChoice) -> None:
    shared = SharedPyramid(choice)
    rows, columns = range(500, 530), range(250, 270)
    torch.testing.assert_close(
        shared.window(1, rows, columns, maximum), shared.pyramid.window(1, rows, columns, maximum)
    )


def test_the_pyramids_written_first_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / f"{name}.pyramid"
        path.write_bytes(bytes(100))
        stamp = time.time() - 100 * age
        os.utime(path, (stamp, stamp))
    trim(tmp_path, 250)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["middle", "new"]


def test_a_trace_that_is_deleted_meanwhile_leaves_no_pyramid(
    choice: MapChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = TilePyramid.fill

    def deleting(self: TilePyramid, stripe: int) -> None:
        choice.heads.path.unlink(missing_ok=True)
        fill(self, stripe)

    monkeypatch.setattr(TilePyramid, "fill", deleting)
    shared = SharedPyramid(choice)
    shared.wait()
    until(lambda: shared.is_complete and is_idle(shared))
    assert not shared.path.parent.exists()
