"""Compare: two traces token by token and head by head."""

from pathlib import Path

import pandas
import streamlit as st

from attnscope.app.address import METRIC, OTHER
from attnscope.app.choices import attentive_trace, choose_metric, choose_name, choose_trace
from attnscope.app.comparison import (
    Side,
    aligned_positions,
    head_difference,
    token_difference,
    token_numbers,
    token_values,
)
from attnscope.app.downloads import offer
from attnscope.app.head_search import ranked_heads
from attnscope.app.library import the_library
from attnscope.app.markdown_text import as_text
from attnscope.app.pictures import Told, draw, draw_text
from attnscope.app.screen import visible
from attnscope.app.shared_readings import head_metrics, head_reading
from attnscope.figures import head_grid, token_ribbon
from attnscope.metrics import MetricError, Reading
from attnscope.traces import TraceError

__all__ = ["show"]

_FIRST = "head_span"
_LISTED = 12


def show() -> None:
    """Show two traces of the store beside each other."""
    st.title("Compare")
    chosen = choose_trace()
    with st.sidebar:
        name = choose_name("With", OTHER, at=1)
    first = Side(path=chosen.path, trace=chosen.trace, stack=chosen.stack)
    second = _second(the_library().path_of(name), chosen.stack)
    st.dataframe(
        pandas.DataFrame([_facts("first", chosen.name, first), _facts("second", name, second)]),
        hide_index=True,
        alt="The two traces that are compared",
    )
    tokens, heads = st.tabs(["Token by token", "Head by head"])
    with tokens:
        _tokens(first, second)
    with heads:
        _heads(first, second)


def _second(path: Path, stack: str) -> Side:
    trace = attentive_trace(path)
    return Side(path=path, trace=trace, stack=stack if stack in trace.stacks else trace.main_stack)


def _facts(place: str, name: str, side: Side) -> dict[str, object]:
    summaries = [own for own in side.trace.observed.summaries if own.site.stack == side.stack]
    return {
        "": place,
        "trace": name,
        "model": side.trace.provenance.model or "not named",
        "tokens": len(side.tokens),
        "compared": len(side.positions),
        "layers": len(summaries),
        "heads": summaries[0].shape[0],
        "stack": side.stack,
    }


def _tokens(first: Side, second: Side) -> None:
    titles = token_numbers()
    name = choose_metric("Number per token", "token_metric", titles, next(iter(titles)))
    pairs = aligned_positions(first, second)
    st.caption(
        f"{len(pairs)} tokens stand in both, of {len(first.positions)} in the first and "
        f"{len(second.positions)} in the second. Hatched: not in the second, or undefined. "
        "Metrics of heads are averaged over all heads."
    )
    try:
        difference = token_difference(first, second, name, pairs)
        values = [token_values(side, name).values.float().tolist() for side in (first, second)]
    except MetricError as error:
        st.info(as_text(str(error)), icon=":material/block:")
        return
    table = pandas.DataFrame(
        [
            (
                a,
                b,
                visible(first.tokens[a]),
                values[0][a],
                values[1][b],
                values[1][b] - values[0][a],
            )
            for a, b in pairs
        ],
        columns=["first at", "second at", "token", "first", "second", "difference"],
    )
    ribbon = token_ribbon(difference)
    draw_text(ribbon, Told(name="token-difference", words=difference.title, table=lambda: table))
    st.dataframe(
        table.sort_values("difference", key=abs, ascending=False).head(_LISTED),
        hide_index=True,
        alt=f"The {_LISTED} tokens that differ most",
    )


def _heads(first: Side, second: Side) -> None:
    titles = {metric.name: metric.title for metric in head_metrics()}
    name = choose_metric("Metric", METRIC, titles, _FIRST)
    try:
        readings = [head_reading(side.path, side.stack, name) for side in (first, second)]
    except (MetricError, TraceError) as error:
        st.info(as_text(str(error)), icon=":material/block:")
        return
    limits = _limits(readings)
    for column, place, reading in zip(st.columns(2), ("first", "second"), readings, strict=True):
        with column:
            grid = head_grid(reading, limits=limits, title=f"{reading.title}: {place}")
            words = f"{reading.title} of the heads of the {place} trace"
            draw(grid, Told(name=f"grid-{place}", words=words, table=reading.to_pandas))
    _head_difference(*readings)


def _head_difference(one: Reading, other: Reading) -> None:
    try:
        difference = head_difference(one, other)
    except MetricError as error:
        st.info(as_text(str(error)), icon=":material/block:")
        return
    words = f"{difference.title}, head by head"
    grid = head_grid(difference)
    draw(grid, Told(name="grid-difference", words=words, table=difference.to_pandas))
    ranked = sorted(ranked_heads(difference, highest=True), key=lambda pair: -abs(pair[1]))
    table = pandas.DataFrame(
        [(str(head), value) for head, value in ranked], columns=["head", "difference"]
    )
    st.dataframe(table.head(_LISTED), hide_index=True, alt="The heads that differ most")
    offer("head-differences", table=lambda: table)


def _limits(readings: list[Reading]) -> tuple[float, float] | None:
    """Return one color scale for both, from the lowest to the highest number of either."""
    known = [value for reading in readings for _, value in ranked_heads(reading, highest=False)]
    low = readings[0].bounds[0]
    if not known:
        return None
    return (min(known) if low is None else low, max(known))
