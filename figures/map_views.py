"""`map_view` and `strongest_cells`: what is on the screen of a map, for paper and in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.figures.head_map import HeadMap
from attnscope.figures.maps import AttentionMap
from attnscope.figures.reduction import Reduction
from attnscope.figures.scale import DECADES, Scale, linear_scale, logarithmic_scale
from attnscope.figures.token_text import position_labels

__all__ = ["CellWindow", "StrongCell", "map_view", "strongest_cells", "view_scale"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellWindow:
    """Some cells of a level of a map.

    Attributes:
        source: The map.
        level: Cells are `2**level` entries wide and high.
        rows: Rows of cells, counted from query 0.
        columns: Columns of cells, counted from key 0.
        reduction: What a cell shows.
        values: Their numbers; NaN where nothing exists.
    """

    source: HeadMap
    level: int
    rows: range
    columns: range
    reduction: Reduction
    values: Float[Tensor, "query_cell key_cell"]

    @property
    def queries(self) -> range:
        """Return the queries that the rows cover."""
        return _positions(self.rows, 2**self.level, self.source.queries)

    @property
    def keys(self) -> range:
        """Return the keys that the columns cover."""
        return _positions(self.columns, 2**self.level, self.source.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrongCell:
    """One cell of a map in words.

    Attributes:
        query: The query, or the run of queries, with its token.
        key: The key, or the run of keys, with its token.
        value: Its number.
    """

    query: str
    key: str
    value: float


def map_view(
    window: CellWindow,
    scale: Scale,
    *,
    query_tokens: Sequence[str],
    key_tokens: Sequence[str],
    title: str,
) -> AttentionMap:
    """Return some cells of a map as a picture with the colors that they have on the screen.

    Args:
        window: The cells.
        scale: The colors.
        query_tokens: A text for each query of the map.
        key_tokens: A text for each key of the map.
        title: What to write above.
    """
    step = 2**window.level
    kind = window.source.axes[0] if len(set(window.source.axes)) == 1 else "position"
    how = (
        f"one cell per {kind}"
        if step == 1
        else f"{window.reduction.name} over {step} × {step} {kind}s per cell"  # noqa: RUF001
    )
    return AttentionMap(
        values=window.values,
        queries=window.queries,
        keys=window.keys,
        steps=(step, step),
        query_labels=position_labels(window.queries, step, tuple(query_tokens)),
        key_labels=position_labels(window.keys, step, tuple(key_tokens)),
        scale=scale,
        title=title,
        caption=how,
        axes=window.source.axes,
    )


def strongest_cells(view: AttentionMap, count: int) -> list[StrongCell]:
    """Return the cells of a picture that are largest in size, the largest first."""
    sizes = view.values.abs().nan_to_num(-1.0).flatten()
    ranked = sizes.topk(min(count, len(sizes)))
    columns = view.values.shape[1]
    return [
        StrongCell(
            query=view.query_labels[place // columns],
            key=view.key_labels[place % columns],
            value=float(view.values.flatten()[place]),
        )
        for size, place in zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True)
        if size > 0
    ]


def _positions(cells: range, step: int, length: int) -> range:
    return range(cells.start * step, min(cells.stop * step, length))


def view_scale(window: CellWindow, *, contrast: int, logarithmic: bool) -> Scale:
    """Return the colors of some cells, up to a round number, so that a small step changes none.

    Args:
        window: The cells.
        contrast: How many times earlier the last color is reached; what lies above has it too.
        logarithmic: Whether to tell small numbers apart by powers of ten, where the map has no
            sign and anything is above zero.
    """
    sizes = window.values.abs()
    known = sizes[sizes.isfinite()]
    most = float(known.max()) if known.numel() else 0.0
    high = _round_up(most / contrast) if most > 0 else 1.0
    source = window.source
    limits = (-high if source.signed else 0.0, high)
    scale = linear_scale(window.values, label=source.label, bounds=source.bounds, limits=limits)
    if not logarithmic or source.signed or most == 0:
        return scale
    return logarithmic_scale(scale, torch.tensor([high * 10.0**-DECADES, high]))


def _round_up(number: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten, for a number above zero.

    Example:
        >>> _round_up(0.93), _round_up(0.3), _round_up(0.05)
        (1.0, 0.5, 0.05)
    """
    power = 10.0 ** math.floor(math.log10(number))
    return min(factor * power for factor in (1, 2, 5, 10) if factor * power >= number * (1 - 1e-9))
