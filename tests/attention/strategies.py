"""Random operators for hypothesis: shapes, masks, biases, caps and sinks in every combination."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import AlibiBias, Bias, DenseBias, Mask, RelativeBias
from tests.attention.oracle import Case

__all__ = ["biases", "cases", "masks", "normal"]

Draw = Callable[[st.SearchStrategy[Any]], Any]


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return standard normal numbers, the same for one seed."""
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def _seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**31)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def masks(draw: Draw, batch: tuple[int, ...], queries: int, keys: int) -> Mask:
    """Return a mask of up to every rule at once, arrays with or without the batch axes."""
    rules: dict[str, Any] = {
        "before": draw(_maybe(st.integers(0, 8))),
        "after": draw(_maybe(st.sampled_from([0, 0, 0, 1, 4, -1]))),
        "chunk": draw(_maybe(st.none() | st.integers(1, 9))),
        "query_origin": draw(st.sampled_from([keys - queries, keys - queries, 0, 3])),
        "key_origin": draw(st.sampled_from([0, 0, 2])),
    }
    extra = draw(
        st.sets(
            st.sampled_from(["key_valid", "query_valid", "segment", "block", "allowed"]), max_size=2
        )
    )
    for name in sorted(extra):
        lead = draw(st.sampled_from([(), batch, (1,) * len(batch)]))
        rules |= _array_rules(draw, name, lead, queries, keys)
    return Mask(**rules)


def _array_rules(
    draw: Draw, name: str, lead: tuple[int, ...], queries: int, keys: int
) -> dict[str, Tensor]:
    seed = draw(_seeds())
    if name == "segment":
        return {
            f"{side}_segment": _runs(seed, lead, size)
            for side, size in (("query", queries), ("key", keys))
        }
    if name == "block":  # negative: in no block
        return {
            f"{side}_block": _runs(seed, lead, size) - 2
            for side, size in (("query", queries), ("key", keys))
        }
    if name == "allowed":
        return {name: normal(seed, *lead, queries, keys) > -0.8}
    length = keys if name == "key_valid" else queries
    border = torch.arange(length) - draw(st.integers(0, length))
    padding = draw(st.sampled_from(["left", "right", "holes"]))
    rows = {"left": border >= 0, "right": border < 0, "holes": normal(seed, length) > -0.8}
    return {name: rows[padding].expand(*lead, length).clone()}


def _runs(seed: int, lead: tuple[int, ...], length: int) -> Tensor:
    """Return growing whole numbers, in runs of one number each."""
    return (normal(seed, *lead, length) > 1.0).long().cumsum(-1)


@st.composite
def biases(draw: Draw, batch: tuple[int, ...], heads: int, queries: int, keys: int) -> Bias:
    """Return an additive bias of any kind."""
    kind, seed = draw(st.sampled_from(["alibi", "relative", "dense"])), draw(_seeds())
    if kind == "alibi":
        return AlibiBias(normal(seed, heads).abs(), draw(st.sampled_from([0, keys - queries])))
    some = draw(st.sampled_from([1, heads]))
    if kind == "relative":
        length = draw(st.sampled_from([queries + keys - 1, 3]))  # at its end a short table goes on
        return RelativeBias(normal(seed, some, length), min(queries, length) - 1)
    lead = draw(st.sampled_from([(), batch, (1,) * len(batch)]))
    values = normal(seed, *lead, some, queries, keys)
    hidden = normal(seed + 1, *values.shape) < draw(st.sampled_from([-9, -1, 1]))
    return DenseBias(values.masked_fill(hidden, -torch.inf))


@st.composite
def cases(
    draw: Draw,
    dtype: torch.dtype = torch.float64,
    *,
    plain: bool = False,
    sinks: bool = True,
    square: bool = False,
    longest: int = 36,
) -> Case:
    """Return a case; `plain` leaves out biases and caps."""
    batch = draw(st.sampled_from([(), (), (1,), (2,), (2, 2)]))
    kv_heads, group = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]))
    heads, dim = kv_heads * group, draw(st.integers(1, 6))
    keys = draw(st.integers(1, longest))
    queries = keys if square or draw(st.booleans()) else draw(st.integers(1, longest))
    seed = draw(_seeds())
    options: dict[str, Any] = {"scale": draw(_maybe(st.floats(0.05, 2.5)))}
    style = draw(st.sampled_from(["default", "all", "mask", "mask", "mask"]))
    if style == "mask":
        options["mask"] = draw(masks(batch, queries, keys))
    elif style == "all":
        options["causal"] = False
    if not plain and draw(st.booleans()):
        options["bias"] = draw(biases(batch, heads, queries, keys))
    if not plain and draw(st.booleans()):
        options["softcap"] = draw(st.floats(0.5, 5.0))
    if sinks and draw(st.integers(0, 3)) == 0:
        options["sinks"] = normal(seed + 2, heads, dtype=dtype)
    query = normal(seed, *batch, heads, queries, dim, dtype=dtype)
    return Case(query, normal(seed + 1, *batch, kv_heads, keys, dim, dtype=dtype), options)
