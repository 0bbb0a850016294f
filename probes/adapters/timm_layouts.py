"""Where the tokens that an attention module of timm mixes stand on the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = [
    "SLOTS",
    "Grid",
    "Placement",
    "Scene",
    "numbered_padding",
    "on_picture",
    "patch_grid",
    "strided_windows",
    "windows",
]

Grid = tuple[int, int]

SLOTS = "(batch window) head slot dim"
"""How most modules hold their queries, keys and values: every window is one more item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is known of a module when its attention is heard.

    Attributes:
        path: Path of the module.
        modules: All modules of the model, by path.
        entered: Shape of the first tensor that entered each module above, by path.
        arguments: What the module itself was called with.
        picture: Rows and columns of pixels, None if no picture entered the model.
        queries: Queries of one window.
        keys: Keys of one window.
    """

    path: str
    modules: Mapping[str, nn.Module]
    entered: Mapping[str, tuple[int, ...]]
    arguments: tuple[Any, ...]
    picture: Grid | None
    queries: int
    keys: int

    @property
    def module(self) -> Any:
        """Return the module itself."""
        return self.modules[self.path]

    def above(self, steps: int = 1) -> Any:
        """Return the module some steps up the path."""
        return self.modules[self._path_above(steps)]

    def shape_above(self, steps: int = 1) -> tuple[int, ...]:
        """Return the shape of what entered the module some steps up the path."""
        return self.entered[self._path_above(steps)]

    @property
    def prefix(self) -> int:
        """Return how many class and register tokens the model says it has."""
        parts = self.path.split(".")
        paths = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
        owners = (self.modules[path] for path in paths)
        counts = (getattr(owner, "num_prefix_tokens", None) for owner in owners)
        return next((int(count) for count in counts if count is not None), 0)

    def _path_above(self, steps: int) -> str:
        return ".".join(self.path.split(".")[:-steps])


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the queries and keys of a call stand.

    Attributes:
        grid: Rows and columns of the last queries, in raster order.
        key_grid: The same of the keys.
        query_axis: What a query is: patch, channel or probe.
        key_axis: What a key is.
        query_table: Position of the query in each `(window, slot)`; None where the module sees
            everything in one window, in order.
        key_table: The same of the keys, -1 where nobody stands.
        axes: The axes of the tensors that the module mixes, as an einops pattern.
    """

    grid: Grid | None = None
    key_grid: Grid | None = None
    query_axis: str = "patch"
    key_axis: str = "patch"
    query_table: Int[Tensor, "window query_slot"] | None = None
    key_table: Int[Tensor, "window key_slot"] | None = None
    axes: str = SLOTS

    @property
    def sees_itself(self) -> bool:
        """Return whether queries and keys are the same patches."""
        return self.grid is not None and self.grid == self.key_grid

    @property
    def window_count(self) -> int:
        """Return the number of windows."""
        return 1 if self.query_table is None else len(self.query_table)


def patch_grid(count: int, scene: Scene) -> Grid | None:
    """Return the grid of the last tokens, or None where no grid has that many and this shape.

    A grid is the picture in steps of some pixels, rounded up or down; before it stand as many
    class and register tokens as the model says, or none, or one.
    """
    if scene.picture is None:
        return None
    for prefix in dict.fromkeys((scene.prefix, 0, 1)):
        for step in range(1, max(scene.picture) + 1):
            exact = [side / step for side in scene.picture]
            down, up = [max(1, int(side)) for side in exact], [-int(-side // 1) for side in exact]
            for rows, columns in (up, down):
                if rows * columns == count - prefix:
                    return rows, columns
    return None


def windows(grid: Grid, size: Grid, shift: Grid = (0, 0)) -> Int[Tensor, "window slot"]:
    """Return the place in each slot of windows laid over a grid that was rolled first.

    -1 fills up the last windows where the grid is no multiple of them.

    Example:
        >>> windows((2, 4), (2, 2)).tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7]]
        >>> windows((2, 2), (2, 2), shift=(1, 1)).tolist()
        [[3, 2, 1, 0]]
    """
    places = torch.arange(grid[0] * grid[1]).reshape(grid)
    places = places.roll((-shift[0], -shift[1]), dims=(0, 1))
    down, right = -grid[0] % size[0], -grid[1] % size[1]
    places = nn.functional.pad(places, (0, right, 0, down), value=-1)
    axes = "(above row) (left column) -> (above left) (row column)"
    return rearrange(places, axes, row=size[0], column=size[1])


def strided_windows(grid: Grid, size: Grid) -> Int[Tensor, "window slot"]:
    """Return the place in each slot of windows whose slots lie spread over the whole grid.

    Example:
        >>> strided_windows((2, 4), (2, 2)).tolist()
        [[0, 2, 4, 6], [1, 3, 5, 7]]
    """
    places = torch.arange(grid[0] * grid[1]).reshape(grid)
    axes = "(row above) (column left) -> (above left) (row column)"
    return rearrange(places, axes, row=size[0], column=size[1])


def numbered_padding(table: Int[Tensor, "window slot"]) -> Int[Tensor, "window slot"]:
    """Return a table in which padding tokens are positions of their own, before all others.

    A module that pads before its projections mixes these tokens like any other.

    Example:
        >>> numbered_padding(torch.tensor([[0, -1], [1, -1]])).tolist()
        [[2, 0], [3, 1]]
    """
    empty = table < 0
    numbers = empty.flatten().cumsum(0).reshape(table.shape) - 1
    return torch.where(empty, numbers, table + empty.sum())


def on_picture(
    slots: Float[Tensor, "batch window head slot dim"], table: Int[Tensor, "window slot"]
) -> Float[Tensor, "batch head place dim"]:
    """Return what stands at each place; windows that share one hold the same."""
    flat = rearrange(slots, "batch window head slot dim -> batch head (window slot) dim")
    filled = (table.flatten() >= 0).nonzero().squeeze(-1)
    where = torch.empty(int(table.max()) + 1, dtype=torch.long, device=table.device)
    where[table.flatten()[filled]] = filled
    return flat.index_select(2, where)
