"""Map: one head's map, or the mean of some, from the whole text down to single tokens."""

import pandas
import streamlit as st

from attnscope.app.address import keep, kept
from attnscope.app.choices import choose_trace
from attnscope.app.downloads import offer
from attnscope.app.falsify_link import offer_falsifying
from attnscope.app.map_answers import Part, Question, read_question
from attnscope.app.map_canvas import asked_of, map_canvas
from attnscope.app.map_choice import MapChoice
from attnscope.app.map_controls import Looks, choose_looks, choose_map
from attnscope.app.map_pyramids import SharedPyramid, shared_pyramid
from attnscope.app.map_screen import MapScreen, screen_of
from attnscope.figures import HeadName, TilePyramid

__all__ = ["show"]

_VIEW, _SHOWN, _PASS = "view", "map shown", "map pass"
_LOOK_AGAIN = 1.0
"""Seconds between two looks at a pass in the background."""


def show() -> None:
    """Show the map of the chosen head."""
    st.title("Map")
    chosen = choose_trace()
    choice = choose_map(chosen)
    shared = shared_pyramid(choice)
    looks = choose_looks(signed=shared.pyramid.source.signed)
    shared.wait()
    canvas = f"map of {chosen.stack} of {chosen.name}"
    if st.session_state.setdefault(_SHOWN, canvas) != canvas:
        st.session_state[_SHOWN] = canvas
        keep(**{_VIEW: None})  # it was a part of another text
    every = _LOOK_AGAIN if shared.is_filling else None
    st.fragment(_map, run_every=every)(canvas, choice, looks, shared)
    offer_falsifying(chosen, HeadName(choice.heads.layer, choice.heads.heads[0]))


def _map(canvas: str, choice: MapChoice, looks: Looks, shared: SharedPyramid) -> None:
    """Answer what the browser asks: this alone runs when the map is moved."""
    question = _question(canvas, shared.pyramid)
    whole = question.part == _whole(shared.pyramid)
    keep(**{_VIEW: None if whole else "-".join(map(str, question.part))})
    screen = screen_of(choice, looks, shared, question)
    st.subheader(choice.title, anchor=False)
    map_canvas(screen.packet, key=canvas)
    _show_pass(shared)
    _show_words(screen)


def _question(canvas: str, pyramid: TilePyramid) -> Question:
    """Return what the browser asked, or at first the part that the address names."""
    question = read_question(asked_of(canvas), pyramid)
    if question is not None:
        return question
    named = {"map": "", "level": pyramid.top, "want": [], "serial": 0}
    question = read_question({**named, "view": (kept(_VIEW) or "").split("-")}, pyramid)
    if question is not None:
        return question
    return Question(map="", level=pyramid.top, part=_whole(pyramid), wanted=(), serial=0)


def _whole(pyramid: TilePyramid) -> Part:
    return 0, pyramid.source.queries, 0, pyramid.source.keys


def _show_pass(shared: SharedPyramid) -> None:
    """Tell how far the coarse levels are, and let the pass be stopped and resumed."""
    if shared.note:
        st.caption(shared.note)
    if shared.problem:
        st.error(shared.problem, icon=":material/error:")
    if shared.is_complete:
        if st.session_state.pop(_PASS, False):
            st.rerun()  # so that the page stops looking again
        return
    left, right = st.columns([5, 1], vertical_alignment="center")
    share = shared.pyramid.share
    if shared.is_filling:
        st.session_state[_PASS] = True
        shared.wait()
        left.progress(share, f"Computing the coarse levels once: {share:.0%}")
        right.button("Stop", key="map stop", on_click=shared.stop, width="stretch")
    else:
        left.progress(share, f"The coarse levels are known to {share:.0%}; zoom in for the rest.")
        if right.button("Resume", key="map resume", width="stretch"):
            shared.resume()
            st.rerun()


def _show_words(screen: MapScreen) -> None:
    """Say in words what the view shows, and offer it as files."""
    picture = screen.picture
    left, right = st.columns([5, 1], vertical_alignment="top")
    left.caption(picture.caption)
    with right:
        offer("map", picture=picture, table=lambda: _cells(screen))
    table = pandas.DataFrame(
        [(cell.query, cell.key, cell.value) for cell in screen.strongest],
        columns=["query", "key", picture.scale.label],
    )
    with left.expander("The strongest cells of the view", icon=":material/table:", expanded=True):
        st.dataframe(
            table,
            hide_index=True,
            alt="The strongest cells of the view",
            column_config={picture.scale.label: st.column_config.NumberColumn(format="%.3g")},
        )


def _cells(screen: MapScreen) -> pandas.DataFrame:
    """Return the cells of the view that exist, one row each."""
    picture = screen.picture
    rows, columns = (~picture.values.isnan()).nonzero(as_tuple=True)
    return pandas.DataFrame(
        {
            "query": [picture.query_labels[row] for row in rows.tolist()],
            "key": [picture.key_labels[column] for column in columns.tolist()],
            picture.scale.label: picture.values[rows, columns].numpy(),
        }
    )
