"""`SharedPyramid`: a map's pyramid for all sessions, its coarse levels filled in the background."""

import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import streamlit as st
import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.app.library import forget_pyramids, stamp_of
from attnscope.app.map_choice import MapChoice
from attnscope.figures import (
    TILE,
    Reduction,
    StalePyramidError,
    TilePyramid,
    build_pyramid,
    fill_pyramid,
    load_stripes,
    pyramid_path,
)

__all__ = ["SharedPyramid", "shared_pyramid", "trim"]

_PYRAMIDS = 16
_TILES = 384
"""Computed tiles that are kept for all sessions: 96 MiB of float32."""

_PATIENCE = 15.0
"""Seconds after which a pass that nobody waits for stops; the next visitor resumes it."""

_MOST_KEPT = 2**30
"""Bytes of pyramids that are kept beside one trace; those written first go first."""


class SharedPyramid:
    """A pyramid, its file, and the state of the one pass over its map.

    Attributes:
        pyramid: The tiles.
        trace: The trace's file.
        path: The file of the tiles, beside it.
        identity: What the file belongs to.
        problem: Why the pass failed; empty where it did not.
        note: Why its result is in memory alone; empty where there is a file.
        is_stopped: Whether somebody stopped the pass.
    """

    def __init__(self, choice: MapChoice) -> None:
        self.identity = choice.identity
        self.trace = choice.heads.path
        self.path = pyramid_path(self.trace, choice.key)
        try:
            stripes = load_stripes(self.path, self.identity)
        except StalePyramidError:  # of a trace that was replaced since: the pass writes it anew
            stripes = {}
        self.pyramid = TilePyramid(source=choice.map(), stripes=stripes)
        self.problem = self.note = ""
        self.is_stopped = False
        self._awaited = 0.0
        self._running = threading.Lock()

    @property
    def is_complete(self) -> bool:
        """Return whether every level can be shown."""
        return not self.pyramid.missing

    @property
    def is_filling(self) -> bool:
        """Return whether the pass is under way, or will be."""
        return not (self.is_complete or self.is_stopped or self.problem)

    def wait(self) -> None:
        """Say that somebody waits for the coarse levels; start the pass if none is under way."""
        self._awaited = time.monotonic()
        if self.is_filling and self._running.acquire(blocking=False):
            _workers().submit(self._fill)

    def stop(self) -> None:
        """Stop the pass after the stripe it is at; what it has found is kept."""
        self.is_stopped = True

    def resume(self) -> None:
        """Let the pass go on."""
        self.is_stopped, self.problem = False, ""
        self.wait()

    def tile(self, place: tuple[int, int, int], reduction: Reduction) -> Float[Tensor, "q k"]:
        """Return the tile at (level, row, column); of computed ones the last are remembered."""
        if place[0] in self.pyramid.kept:
            return self.pyramid.tile(*place, reduction)
        return _tile(self.identity, place, reduction.name, self.pyramid, reduction)

    def window(
        self, level: int, rows: range, columns: range, reduction: Reduction
    ) -> Float[Tensor, "query_cell key_cell"]:
        """Return any run of cells of a level, put together from tiles."""
        cells = torch.full((len(rows), len(columns)), torch.nan)
        for row in range(rows.start // TILE, (rows.stop - 1) // TILE + 1):
            for column in range(columns.start // TILE, (columns.stop - 1) // TILE + 1):
                tile = self.tile((level, row, column), reduction)
                down, across = row * TILE - rows.start, column * TILE - columns.start
                part = tile[
                    max(0, -down) : len(rows) - down, max(0, -across) : len(columns) - across
                ]
                top, left = max(0, down), max(0, across)
                cells[top : top + part.shape[0], left : left + part.shape[1]] = part
        return cells

    def _fill(self) -> None:
        """Fill what is missing, as long as somebody waits for it."""
        try:
            self._pass(build_pyramid(self.pyramid, self.path, self.identity))
            trim(self.path.parent, _MOST_KEPT)
        except OSError as error:
            self.note = f"The coarse levels are kept in memory alone: {error}"
            self._pass(fill_pyramid(self.pyramid))
        except Exception as error:  # the page says it; nobody hears what a thread raises
            self.problem = f"The coarse levels cannot be computed: {error}"
        finally:
            if not self.trace.exists():  # deleted meanwhile, and what was written since, too
                forget_pyramids(self.trace)
            self._running.release()

    def _pass(self, shares: Generator[float, None, None]) -> None:
        for _ in shares:
            if self.is_stopped or time.monotonic() - self._awaited > _PATIENCE:
                shares.close()  # which keeps what was found


def shared_pyramid(choice: MapChoice) -> SharedPyramid:
    """Return the pyramid of a map, the same for all sessions; of a replaced trace, a new one.

    Raises:
        TraceError: A trace holds no such heads, or no gradients.
        FigureError: The two maps have no difference.
    """
    paths = [group.path for group in (choice.heads, choice.minus) if group is not None]
    return _shared(choice, tuple(map(stamp_of, paths)))


def trim(folder: Path, most: int) -> None:
    """Delete the pyramids of a folder that were written first, until the others fit."""
    files = sorted(folder.glob("*.pyramid"), key=lambda path: path.stat().st_mtime, reverse=True)
    size = 0
    for path in files:
        size += path.stat().st_size
        if size > most:
            with suppress(OSError):  # another server was faster
                path.unlink()


@st.cache_resource(max_entries=_PYRAMIDS, show_spinner=False)
def _shared(choice: MapChoice, stamps: tuple[tuple[str, int, int], ...]) -> SharedPyramid:
    return SharedPyramid(choice)


@st.cache_resource(max_entries=_TILES, show_spinner=False)
def _tile(
    identity: str,
    place: tuple[int, int, int],
    name: str,
    _pyramid: TilePyramid,
    _reduction: Reduction,
) -> Tensor:
    return _pyramid.tile(*place, _reduction)


@st.cache_resource(show_spinner=False)
def _workers() -> ThreadPoolExecutor:
    """Return the one worker of this server: two passes at once would only slow each other."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="pyramid")
