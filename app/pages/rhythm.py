"""Rhythm: how a response is planned and held together, token by token."""

from collections.abc import Sequence

import pandas
import streamlit as st

from attnscope.app.address import TOKEN
from attnscope.app.choices import Chosen, choose_head, choose_trace, heads_of, layers_of
from attnscope.app.clickable import clickable_rhythm
from attnscope.app.coupled_pairs import coupled_pairs
from attnscope.app.downloads import offer
from attnscope.app.markdown_text import as_text
from attnscope.app.pictures import Told, draw, draw_text, selected_point
from attnscope.app.screen import visible
from attnscope.app.shared_readings import shared_pictures
from attnscope.app.token_relations import (
    Relations,
    relations_of,
    strongest,
    window_around,
)
from attnscope.figures import HeadName, Mark, RhythmPlot, TracePictures, token_ribbon
from attnscope.metrics import HeadGroups, MetricError, Reading, coupling_of

__all__ = ["show"]

_PLOT = "rhythm"
_CHOSEN = Mark(
    name="the token",
    color="#c2185b",
    plotly="circle",
    matplotlib="v",
    glyph="\N{BLACK DOWN-POINTING TRIANGLE}",
)
_LOCAL, _GLOBAL, _ALL, _ONE = "local heads", "global heads", "all heads", "one head"
_COUPLING = {
    "entropy_at_waad_peaks": ("Entropy where WAAD peaks", "nats"),
    "receiver_peaks_on_fai_peaks": ("Receiver heads' peaks that are FAI peaks", "share"),
    "fai_peaks_after_waad_peaks": ("FAI peaks at or right behind a WAAD peak", "share"),
}


def show() -> None:
    """Show the rhythm of the chosen trace."""
    st.title("Rhythm")
    chosen = choose_trace()
    pictures = shared_pictures(chosen.path, chosen.stack)
    plot = pictures.rhythm()
    if plot is None:
        st.info("There is no rhythm to show here.")
        for reason in dict.fromkeys(pictures.reasons.values()):
            st.caption(reason)
        return
    st.write(
        "How far back the local heads look from each token (WAAD), how much later tokens read it "
        "(FAI), and how undecided the model was. Click a token, or give its position below."
    )
    position = _plot(plot, pictures)
    if position is not None:
        _relations(pictures, chosen, position)
    _text(pictures)
    _pairs(pictures, chosen)


def _plot(plot: RhythmPlot, pictures: TracePictures) -> int | None:
    """Show the curves, and return the position of the token that is looked at."""
    above = st.container()  # the curves mark the token that is chosen below them
    last = len(pictures.queries.tokens) - 1
    position = st.number_input(
        f"Token, by its position (0 to {last})",
        min_value=0,
        max_value=last,
        value=None,
        key=TOKEN,
        bind="query-params",
        help="Type a position, or go along the text with the arrow keys.",
    )
    chosen = None if position is None else int(position)
    told = Told(name=_PLOT, words=_in_words(pictures), table=lambda: token_table(pictures))
    with above:
        draw(plot, told, figure=clickable_rhythm(plot, chosen), on_select=_take_click)
    return chosen


def _take_click() -> None:
    point = selected_point(_PLOT)
    if point is not None:
        st.session_state[TOKEN] = int(point)


def _relations(pictures: TracePictures, chosen: Chosen, position: int) -> None:
    token = visible(pictures.queries.tokens[position])
    st.subheader(as_text(f"Token {position}: {token!r}"), anchor=False)
    heads = _choose_heads(pictures, chosen)
    relations = relations_of(chosen.trace, chosen.stack, position, heads)
    left, right = st.columns(2)
    with left:
        _related("Whom it reads", relations.reads, relations)
    with right:
        _related("Who reads it", relations.readers, relations)


def _choose_heads(pictures: TracePictures, chosen: Chosen) -> list[HeadName]:
    groups = pictures.groups
    kinds = [_ALL, _ONE] if groups is None else [_LOCAL, _GLOBAL, _ALL, _ONE]
    kind = st.segmented_control(
        "In the mean map of", kinds, default=kinds[0], key="heads", bind="query-params"
    )
    if kind == _ONE:
        return [choose_head(chosen)]
    every = [
        HeadName(layer, head) for layer in layers_of(chosen) for head in heads_of(chosen, layer)
    ]
    if groups is None or kind not in (_LOCAL, _GLOBAL):
        return every
    return members_of(groups, pictures.readings[pictures.distance], kind == _LOCAL)


def members_of(groups: HeadGroups, reading: Reading, local: bool) -> list[HeadName]:
    """Return the heads of a group, by the layers and heads of the reading they were found by."""
    layers, heads = reading.coordinates["layer"], reading.coordinates["head"]
    members = groups.local_heads if local else groups.global_heads
    return [HeadName(layers[row], heads[head]) for row, head in members.nonzero().tolist()]


def _related(title: str, reading: Reading, relations: Relations) -> None:
    shown = window_around(reading, relations.position)
    best = strongest(reading)
    ribbon = token_ribbon(
        shown,
        marks={_CHOSEN: [relations.position]},
        limits=(0.0, _brightest(best)),
        title=title,
    )
    told = Told(name=f"{reading.name}-{relations.position}", words=title, table=reading.to_pandas)
    draw_text(ribbon, told)
    if len(shown.values) < len(reading.values):
        st.caption(
            f"{len(shown.values):,} of {len(reading.values):,} tokens, around the chosen one"
        )
    table = pandas.DataFrame(
        [(place, visible(token), share) for place, token, share in best],
        columns=["position", "token", "share"],
    )
    st.dataframe(
        table,
        hide_index=True,
        alt=f"{title}: the largest shares",
        column_config={"share": st.column_config.NumberColumn(format="%.4f")},
    )


def _brightest(best: Sequence[tuple[int, str, float]]) -> float:
    """Return the share of the full tint: the largest besides the first token, which drains most."""
    shares = [share for place, _, share in best if place > 0] or [s for _, _, s in best]
    return max(shares, default=1.0)


def _text(pictures: TracePictures) -> None:
    st.subheader("The text", anchor=False)
    for name, ribbon in pictures.ribbons().items():
        reading = pictures.readings[name]
        draw_text(ribbon, Told(name=name, words=reading.title, table=reading.to_pandas))


def _pairs(pictures: TracePictures, chosen: Chosen) -> None:
    st.subheader("Coupled pairs", anchor=False)
    st.write(
        "Anchors that stand inside a phrase, with the token that opened it: coupled credit gives "
        "part of what such an anchor earns back to that token."
    )
    readings, tokens = pictures.readings, pictures.queries.tokens
    pairs = coupled_pairs(readings["local_waad"], readings["global_fai"])
    table = pandas.DataFrame(
        [
            (
                pair.introductory,
                visible(tokens[pair.introductory]),
                pair.change,
                pair.anchor,
                visible(tokens[pair.anchor]),
                pair.influence,
            )
            for pair in pairs
        ],
        columns=["opens at", "token", "change of WAAD", "anchor at", "anchor", "FAI"],
    )
    st.dataframe(table, hide_index=True, alt=f"{len(pairs)} coupled pairs")
    offer("coupled-pairs", table=lambda: table)
    _coupling(chosen)


def _coupling(chosen: Chosen) -> None:
    """Say whether peaks go together more often than by chance."""
    try:
        coupling = coupling_of(chosen.trace.select(stack=chosen.stack))
    except MetricError as error:
        st.caption(str(error))
        return
    columns = st.columns(len(_COUPLING))
    for column, (name, (title, unit)) in zip(columns, _COUPLING.items(), strict=True):
        found = getattr(coupling, name)
        column.metric(
            f"{title} ({unit})",
            f"{found.observed:.3g}",
            delta=f"{found.lift:+.0%} against chance ({found.chance:.3g})",
            delta_color="off",
        )


def token_table(pictures: TracePictures) -> pandas.DataFrame:
    """Return a row per token shown: its numbers and its roles."""
    readings = pictures.readings
    entropies = pictures.trace.entropies if pictures.has_token_entropy else None
    columns: dict[str, object] = {
        "position": pictures.positions,
        "token": [visible(pictures.queries.tokens[place]) for place in pictures.positions],
        "WAAD": readings["local_waad"].values.tolist(),
        "FAI": readings["global_fai"].values.tolist(),
        "change of WAAD": readings["preplan"].values.tolist(),
        "preplan": (readings["preplan_token"].values == 1).tolist(),
        "anchor": (readings["anchor_token"].values == 1).tolist(),
    }
    if entropies is not None:
        columns["entropy"] = entropies[list(pictures.positions)].tolist()
    return pandas.DataFrame(columns)


def _in_words(pictures: TracePictures) -> str:
    counts = {mark.name: len(places) for mark, places in pictures.marks.items()}
    marks = " and ".join(f"{count} {name} tokens" for name, count in counts.items())
    return f"WAAD, FAI and entropy over {len(pictures.positions)} tokens, with {marks}."
