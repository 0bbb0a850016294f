"""Mechanisms: the reference models, each with formula, cost, a live pattern and readings."""

from dataclasses import replace

import pandas
import streamlit as st
import torch

from attnscope.app.downloads import offer
from attnscope.app.markdown_text import as_text
from attnscope.app.mechanism_costs import measured_costs
from attnscope.app.mechanism_gallery import (
    GALLERY,
    SIDE,
    captured,
    cost_in_words,
    explanation_of,
)
from attnscope.app.pictures import Told, draw
from attnscope.attention import AttentionOperator, GateAttention
from attnscope.figures import GateMap, attention_map, cost_curves, gate_map
from attnscope.metrics import CATALOG, MetricError, measure
from attnscope.traces import Site, TokenSequence, Trace

__all__ = ["show"]

_QUERY = "query"


@st.cache_resource(max_entries=len(GALLERY), show_spinner="Capturing")
def _trace(place: int) -> Trace:
    return captured(GALLERY[place])


def show() -> None:
    """Show one mechanism of the gallery."""
    st.title("Mechanisms")
    names = [mechanism.name for mechanism in GALLERY]
    name = st.selectbox("Mechanism", names, key="mechanism", bind="query-params")
    place = names.index(name)
    explanation = explanation_of(GALLERY[place])
    cost = cost_in_words(explanation)
    st.write(as_text(cost) if cost else "Its cost is not stated.")
    with st.expander("Formula and source", expanded=True, icon=":material/function:"):
        st.code(explanation, language=None)
    trace = _trace(place)
    st.caption(
        f"Captured from a small module with random weights, on {SIDE} x {SIDE} smooth features: "
        "the shape of the pattern is the mechanism's, its content is nobody's."
    )
    site = _choose_site(trace)
    attention = trace.attention[site.stack, site.layer]
    with st.sidebar:
        head = int(
            st.number_input("Head", 0, attention.heads - 1, key="of_head", bind="query-params")
        )
    _pattern(trace, site, attention, head)
    _costs(place)
    _readings(trace, site)


def _costs(place: int) -> None:
    """Show how time grows with length, for this mechanism and for softmax attention beside it."""
    st.subheader("Cost", anchor=False)
    if not st.toggle("Time it on this machine", key="timed", bind="query-params"):
        return
    with st.spinner("Timing"):
        names = {GALLERY[at].name: _timed(at) for at in dict.fromkeys((place, 0))}
    curves = cost_curves(
        names, label="forward pass (ms)", title="Time by length, width 32, random weights"
    )
    words = f"Milliseconds of a forward pass by the number of tokens. {curves.caption}."
    draw(curves, Told(name="mechanism-costs", words=words, table=curves.table))


@st.cache_data(max_entries=len(GALLERY))
def _timed(place: int) -> list[tuple[int, float]]:
    return measured_costs(GALLERY[place])


def _choose_site(trace: Trace) -> Site:
    sites = {site.stack: site for site in trace.sites}
    if len(sites) == 1:
        return trace.sites[0]
    chosen = st.segmented_control(
        "Part of it",
        list(sites),
        default=next(iter(sites)),
        format_func=_part_name,
        required=True,
    )
    return sites[chosen]


def _part_name(stack: str) -> str:
    """Return what a part of a module is called.

    Example:
        >>> _part_name("module.near.mixing"), _part_name("edge_mixing"), _part_name("mixing")
        ('near', 'edge', 'whole')
    """
    words = stack.replace("mixing", "").replace("module", "").strip("._")
    return words.replace("_", " ") or "whole"


def _pattern(trace: Trace, site: Site, attention: AttentionOperator, head: int) -> None:
    queries, keys = trace.sequences[site.query_sequence], trace.sequences[site.key_sequence]
    if isinstance(attention, GateAttention):
        words = f"How much of itself each {queries.axis} keeps, in head {head}."
        shown = gate_map(attention, head, grid=_grid_of(queries), title=f"Gate of head {head}")
        draw(shown, Told(name="gate", words=words))
        return
    query = _choose_query(queries)
    left, right = st.columns(2)
    with left:
        row = _row_on_grid(attention, head, query, keys)
        words = f"What {queries.axis} {query} reads in head {head}, where it lies."
        draw(row, Told(name="row", words=words), figure=row.plotly().update_layout(height=460))
    with right:
        whole = attention_map(attention, head, title=f"Whole map of head {head}")
        if not whole.scale.diverging and bool((whole.values > 0).any()):
            whole = whole.with_log_colors()  # or few large entries would hide the pattern
        words = f"Who reads whom in head {head}: {whole.caption or 'one cell per pair'}."
        figure = whole.plotly().update_layout(height=460)
        draw(whole, Told(name="whole-map", words=words), figure=figure)


def _choose_query(queries: TokenSequence) -> int:
    last, grid = len(queries) - 1, _grid_of(queries)
    middle = last // 2 if grid is None else (grid[0] // 2) * grid[1] + grid[1] // 2
    return st.slider(
        f"Which {queries.axis} reads", 0, last, middle, key=f"{_QUERY} {queries.name} {last}"
    )


def _row_on_grid(
    attention: AttentionOperator, head: int, query: int, keys: TokenSequence
) -> GateMap:
    """Return what one position reads, drawn where it lies: on the keys' grid, else on a strip."""
    row = attention.rows([query])[head, 0].detach().float()
    drawn = gate_map(
        GateAttention(row.unsqueeze(0), query_axis=keys.axis, key_axis=keys.axis),
        0,
        grid=_grid_of(keys),
        title=f"What position {query} reads",
    )
    label = "signed weight" if bool((row < 0).any()) else "share"
    return replace(drawn, scale=replace(drawn.scale, label=label))


def _grid_of(sequence: TokenSequence) -> tuple[int, int] | None:
    runs = sequence.segments.runs
    return runs[-1].grid if runs and runs[-1].stop == len(sequence) else None


def _readings(trace: Trace, site: Site) -> None:
    """Show what every metric of the catalog says of this part, where it applies."""
    st.subheader("Readings", anchor=False)
    operator = trace.attention[site.stack, site.layer]
    st.code(repr(operator), language=None)
    table, reasons = readings_table(trace, site.stack)
    st.dataframe(table, hide_index=True, alt="Mean and range of each metric that applies")
    offer("mechanism-readings", table=lambda: table)
    with st.expander(f"{len(reasons)} metrics do not apply"):
        for name, reason in reasons.items():
            st.text(f"{name}: {reason}")


def readings_table(trace: Trace, stack: str) -> tuple[pandas.DataFrame, dict[str, str]]:
    """Return mean, least and most of each metric that applies to a stack, and why others do not."""
    rows, reasons = [], {}
    for metric in CATALOG:
        try:
            values = measure(trace, metric, stack=stack).values
        except MetricError as error:
            reasons[metric.name] = str(error)
            continue
        known = values[~values.isnan()]
        least, most = torch.aminmax(known) if known.numel() else (torch.tensor(torch.nan),) * 2
        rows.append(
            (metric.title, float(known.mean()), float(least), float(most), metric.unit or "share")
        )
    return pandas.DataFrame(rows, columns=["metric", "mean", "least", "most", "unit"]), reasons
