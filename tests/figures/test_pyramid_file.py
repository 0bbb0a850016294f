import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from attnscope.attention import SoftmaxAttention
from attnscope.figures import (
    FigureError,
    StalePyramidError,
    TilePyramid,
    build_pyramid,
    load_stripes,
    pattern_map,
    pyramid_path,
    trace_identity,
)
from attnscope.traces import Trace


def pyramid_of(length: int = 5000, stripes: dict | None = None) -> TilePyramid:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, length, 4, generator=generator) for _ in range(2))
    return TilePyramid(
        source=pattern_map(SoftmaxAttention(query, key)), stripes={} if stripes is None else stripes
    )


def test_a_pyramid_is_read_as_it_was_built(tmp_path: Path) -> None:
    path, pyramid = tmp_path / "own" / "map.pyramid", pyramid_of()
    path.parent.mkdir()
    shares = list(build_pyramid(pyramid, path, "this"))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    again = pyramid_of(stripes=load_stripes(path, "this"))
    assert not again.missing
    for level in again.kept:
        torch.testing.assert_close(
            again.tile(level, 0, 0), pyramid.tile(level, 0, 0), rtol=0, atol=0, equal_nan=True
        )


def test_a_pass_that_is_stopped_is_resumed_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.pyramid"
    passing = build_pyramid(pyramid_of(), path, "this", pause=1e9)
    next(passing)
    assert not path.exists()
    passing.close()
    known = load_stripes(path, "this")
    again = pyramid_of(stripes=known)
    assert again.missing == [1, 2]
    filled: list[int] = []
    fill = TilePyramid.fill

    def watched(self: TilePyramid, stripe: int) -> None:
        filled.append(stripe)
        fill(self, stripe)

    monkeypatch.setattr(TilePyramid, "fill", watched)
    list(build_pyramid(again, path, "this"))
    assert filled == [1, 2]
    assert not pyramid_of(stripes=load_stripes(path, "this")).missing


def test_a_pass_that_is_killed_leaves_what_it_had_written(tmp_path: Path) -> None:
    path = tmp_path / "map.pyramid"
    program = f"""
        import time, torch
        from pathlib import Path
        from attnscope.attention import SoftmaxAttention
        from attnscope.figures import TilePyramid, build_pyramid, pattern_map
        factors = torch.randn(2, 1, 5000, 4, generator=torch.Generator().manual_seed(0))
        pyramid = TilePyramid(source=pattern_map(SoftmaxAttention(*factors)))
        passing = build_pyramid(pyramid, Path({str(path)!r}), "this", pause=0.0)
        next(passing)
        print("written", flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert pyramid_of(stripes=load_stripes(path, "this")).missing == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["map.pyramid"]


def test_a_complete_pyramid_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "map.pyramid"
    list(build_pyramid(pyramid_of(2100), path, "this"))
    before = path.stat()
    assert list(build_pyramid(pyramid_of(2100, load_stripes(path, "this")), path, "this")) == []
    assert path.stat().st_ino == before.st_ino


def test_a_pyramid_of_another_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.pyramid"
    list(build_pyramid(pyramid_of(2100), path, "this"))
    with pytest.raises(StalePyramidError, match=r"pyramid 1 of this, not .* of that"):
        load_stripes(path, "that")


def test_a_damaged_pyramid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.pyramid"
    list(build_pyramid(pyramid_of(2100), path, "this"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StalePyramidError, match="is damaged"):
        load_stripes(path, "this")


def test_there_is_nothing_where_no_pyramid_was_built(tmp_path: Path) -> None:
    assert load_stripes(tmp_path / "map.pyramid", "this") == {}


def test_the_identity_of_a_trace_follows_its_content(tmp_path: Path, trace: Trace) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    trace.save(first)
    trace.save(second)
    assert trace_identity(first) == trace_identity(second)
    trace.select(layers=0).save(second)
    assert trace_identity(first) != trace_identity(second)


def test_what_is_no_trace_has_no_identity(tmp_path: Path) -> None:
    path = tmp_path / "note.safetensors"
    for content in (b"", b"short", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(FigureError, match="is no trace"):
            trace_identity(path)


def test_maps_of_one_trace_have_files_of_their_own_beside_it() -> None:
    trace = Path("runs/one.safetensors")
    paths = {pyramid_path(trace, key) for key in ("head 0", "head 1")}
    assert len(paths) == 2
    assert {path.parent for path in paths} == {Path("runs/one.pyramids")}


def test_reading_a_file_takes_no_time_worth_naming(tmp_path: Path) -> None:
    path = tmp_path / "map.pyramid"
    list(build_pyramid(pyramid_of(2100), path, "this"))
    start = time.perf_counter()
    load_stripes(path, "this")
    assert time.perf_counter() - start < 1.0
