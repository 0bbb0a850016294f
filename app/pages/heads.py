"""Heads: all heads of a model by what a metric says of them."""

import pandas
import streamlit as st

from attnscope.app.address import HEAD, LAYER, METRIC, go_to
from attnscope.app.choices import Chosen, choose_head, choose_metric, choose_trace, open_head
from attnscope.app.clickable import clickable_grid, clickable_scatter
from attnscope.app.downloads import offer
from attnscope.app.head_search import find_heads, ranked_heads
from attnscope.app.markdown_text import as_text
from attnscope.app.pictures import Told, draw, selected_point
from attnscope.app.reading_tables import parse_head
from attnscope.app.shared_readings import head_metrics, head_reading, shared_pictures
from attnscope.figures import AttentionMap, HeadName, Zoom, head_grid, head_scatter
from attnscope.metrics import MetricError, Reading

__all__ = ["show"]

_GRID, _SCATTER = "heads-grid", "heads-scatter"
_FIRST, _ACROSS, _UP = "head_span", "head_span", "entropy"
_CELLS = 192


def show() -> None:
    """Show the heads of the chosen trace."""
    st.title("Heads")
    chosen = choose_trace()
    _search(chosen)
    left, right = st.columns(2, gap="large")
    with right:
        head = choose_head(chosen)
        _head(chosen, head)
    with left:
        _grid(chosen, head)
    _scatter(chosen)


def _search(chosen: Chosen) -> None:
    question = st.text_input(
        "Find heads",
        key="find_heads",
        bind="query-params",
        placeholder="induction heads, first-token sinks, the most local heads ...",
        max_chars=200,
    )
    if not question:
        return
    answer = find_heads(question)
    if answer is None:
        names = ", ".join(metric.title.lower() for metric in head_metrics())
        st.info(f"No metric goes by these words. There are: {names}.")
        return
    reading = _measured(chosen, answer.metric.name)
    if reading is None:
        return
    order = "highest" if answer.highest else "lowest"
    st.write(f"By **{answer.metric.title.lower()}** ({answer.metric.paper}), the {order} first:")
    ranked = ranked_heads(reading, highest=answer.highest)
    table = pandas.DataFrame(
        [(str(head), value) for head, value in ranked],
        columns=["head", answer.metric.unit or answer.metric.title.lower()],
    )
    st.dataframe(table, hide_index=True, height=250, alt=f"Heads by {answer.metric.title.lower()}")
    offer(f"ranking-{answer.metric.name}", table=lambda: table)


def _grid(chosen: Chosen, head: HeadName) -> None:
    name = _choose_metric("Metric", METRIC, _FIRST)
    reading = _measured(chosen, name)
    if reading is None:
        return
    grid = head_grid(reading)
    told = Told(name=_GRID, words=in_words(reading), table=reading.to_pandas)
    draw(grid, told, figure=clickable_grid(grid, head), on_select=_take_grid)
    st.caption(f"{in_words(reading)} Click a cell to open its head.")


def _scatter(chosen: Chosen) -> None:
    st.subheader("Two metrics against each other", anchor=False)
    st.caption("What is measured of tokens is averaged over the response.")
    left, right = st.columns(2)
    with left:
        across = _choose_metric("To the right", "across", _ACROSS)
    with right:
        up = _choose_metric("Upwards", "up", _UP)
    x, y = _measured(chosen, across), _measured(chosen, up)
    if x is None or y is None:
        return
    pictures = shared_pictures(chosen.path, chosen.stack)
    scatter = head_scatter(x, y, groups=pictures.groups)
    told = Told(
        name=_SCATTER,
        words=f"{in_words(x)} {in_words(y)}",
        table=lambda: x.to_pandas().merge(y.to_pandas(), on=["layer", "head"]),
    )
    draw(scatter, told, figure=clickable_scatter(scatter), on_select=_take_scatter)


def _head(chosen: Chosen, head: HeadName) -> None:
    st.subheader(f"Head {head}", anchor=False)
    shown = shared_pictures(chosen.path, chosen.stack).map_of(head, Zoom(cells=_CELLS))
    if isinstance(shown, AttentionMap) and bool((shown.values > 0).any()):
        shown = shown if shown.scale.diverging else shown.with_log_colors()
    table = _numbers_of(chosen, head)
    words = f"The map of head {head}: {shown.caption}"
    figure = shown.plotly().update_layout(height=420)
    figure.update_xaxes(showticklabels=False).update_yaxes(showticklabels=False)
    draw(shown, Told(name=f"map-{head}", words=words), figure=figure)
    st.dataframe(table, hide_index=True, alt=f"What the metrics say of head {head}")
    if st.button("Open its map", icon=":material/zoom_in:"):
        state = {"trace": chosen.name, "stack": chosen.stack}
        go_to("attention_map", **state, **{LAYER: head.layer, HEAD: head.head})


def _numbers_of(chosen: Chosen, head: HeadName) -> pandas.DataFrame:
    """Return what a report measures of a head, with its rank among all."""
    pictures = shared_pictures(chosen.path, chosen.stack)
    rows = []
    for reading in pictures.readings.values():
        if reading.axes != ("layer", "head"):
            continue
        ranked = [name for name, _ in ranked_heads(reading, highest=True)]
        value = float(reading.select(layer=head.layer, head=head.head).values)
        rank = f"{ranked.index(head) + 1} of {len(ranked)}" if head in ranked else ""
        rows.append((reading.title, value, reading.unit, rank))
    return pandas.DataFrame(rows, columns=["metric", "value", "unit", "rank from the highest"])


def _measured(chosen: Chosen, metric: str) -> Reading | None:
    """Return a head-level reading, or say in the page why there is none."""
    try:
        return head_reading(chosen.path, chosen.stack, metric)
    except MetricError as error:
        st.info(as_text(str(error)), icon=":material/block:")
        return None


def _choose_metric(label: str, key: str, first: str) -> str:
    titles = {metric.name: metric.title for metric in head_metrics()}
    return choose_metric(label, key, titles, first)


def in_words(reading: Reading) -> str:
    """Return a head-level reading as a sentence: the heads at both ends, and how many there are."""
    ranked = ranked_heads(reading, highest=False)
    title = reading.title or reading.name
    if not ranked:
        return f"{title}: undefined for all heads."
    (low, least), (high, most) = ranked[0], ranked[-1]
    unit = f" {reading.unit}" if reading.unit else ""
    return f"{title} of {len(ranked)} heads: from {least:.3g}{unit} ({low}) to {most:.3g} ({high})."


def _take_grid() -> None:
    _take(selected_point(_GRID))


def _take_scatter() -> None:
    _take(selected_point(_SCATTER))


def _take(name: str | None) -> None:
    if name is not None:
        open_head(parse_head(name))
