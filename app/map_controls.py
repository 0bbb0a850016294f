"""What one chooses of a map: whose it is, what it shows, what is taken from it, and its colors."""

from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st

from attnscope.app.address import OTHER
from attnscope.app.choices import (
    Chosen,
    attentive_trace,
    choose_head,
    choose_name,
    heads_of,
    layers_of,
)
from attnscope.app.library import the_library
from attnscope.app.map_choice import QUANTITIES, HeadGroup, MapChoice
from attnscope.figures import Reduction, maximum, mean

__all__ = ["Looks", "choose_looks", "choose_map"]

_REDUCTIONS = {"max": maximum, "mean": mean}
_CONTRASTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """How a map is shown.

    Attributes:
        reduction: What a cell of several entries shows.
        logarithmic: Whether colors tell powers of ten apart.
        contrast: How many times earlier the last color is reached.
    """

    reduction: Reduction
    logarithmic: bool
    contrast: int


def choose_map(chosen: Chosen) -> MapChoice:
    """Return which map is chosen, in widgets whose state stands in the address."""
    left, middle, right, last = st.columns([3, 3, 2, 2], vertical_alignment="bottom")
    with left:
        head = choose_head(chosen)
    others = [number for number in heads_of(chosen, head.layer) if number != head.head]
    group = middle.multiselect(
        "Averaged with heads", others, key="group", bind="query-params", placeholder="no other head"
    )
    quantity = right.selectbox(
        "Shows", _quantities(chosen, head.layer), key="shows", bind="query-params"
    )
    heads = HeadGroup(
        path=chosen.path, stack=chosen.stack, layer=head.layer, heads=(head.head, *sorted(group))
    )
    if not last.toggle("Minus another map", key="minus", bind="query-params"):
        return MapChoice(quantity=quantity, heads=heads)
    return MapChoice(quantity=quantity, heads=heads, minus=_choose_other(chosen, heads))


def choose_looks(*, signed: bool) -> Looks:
    """Return how the map is to be shown.

    Args:
        signed: Whether its entries may be negative; then they have no logarithm.
    """
    left, middle, right = st.columns([2, 3, 4], vertical_alignment="bottom")
    reduction = left.segmented_control(
        "Cells show the",
        list(_REDUCTIONS),
        default="max",
        help="What a cell shows of several entries; zoomed in, each entry has its own cell.",
        required=True,
        key="cell",
        bind="query-params",
    )
    colors = "linear"
    if signed:
        middle.caption("Colors are linear: numbers with a sign have no logarithm.")
    else:
        colors = middle.segmented_control(
            "Colors",
            ["logarithmic", "linear"],
            default="logarithmic",
            required=True,
            key="colors",
            bind="query-params",
        )
    contrast = right.select_slider(
        "Contrast, times",
        _CONTRASTS,
        key="contrast",
        bind="query-params",
        help="The last color is reached this many times earlier; what lies above has it, too.",
    )
    return Looks(
        reduction=_REDUCTIONS[reduction or "max"],
        logarithmic=colors == "logarithmic",
        contrast=contrast,
    )


def _quantities(chosen: Chosen, layer: int) -> list[str]:
    """Return what can be shown of a layer: nothing of gradients where none were captured."""
    with_gradient = (chosen.stack, layer) in chosen.trace.gradient
    return [name for name, make in QUANTITIES.items() if make is None or with_gradient]


def _choose_other(chosen: Chosen, heads: HeadGroup) -> HeadGroup:
    left, middle, right = st.columns([6, 2, 2], vertical_alignment="bottom")
    with left:
        path = the_library().path_of(choose_name("Of the trace", OTHER, at=_place_of(chosen.name)))
    other = _other(chosen, path)
    layers = layers_of(other)
    same = layers.index(heads.layer) if heads.layer in layers else 0
    layer = middle.selectbox("Layer", layers, index=same, key="other_layer", bind="query-params")
    numbers = heads_of(other, layer)
    head = right.selectbox(
        "Head", numbers, index=min(1, len(numbers) - 1), key="other_head", bind="query-params"
    )
    return replace(heads, path=path, stack=other.stack, layer=layer, heads=(head,))


def _place_of(name: str) -> int:
    found, _ = the_library().survey()
    return [holding.name for holding in found].index(name)


def _other(chosen: Chosen, path: Path) -> Chosen:
    """Return another trace by the same stack, or by its main one where it has no such stack."""
    trace = attentive_trace(path)
    stack = chosen.stack if chosen.stack in trace.stacks else trace.main_stack
    return replace(chosen, name=path.name, path=path, trace=trace, stack=stack)
