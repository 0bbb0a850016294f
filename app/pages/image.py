"""Image: where on the picture a token's prediction looks, in four ways side by side."""

from dataclasses import replace
from typing import Any

import pandas
import streamlit as st

from attnscope.app.address import TOKEN, TRACE, go_to
from attnscope.app.asked_prompts import PRIORS, opened_picture
from attnscope.app.choices import Chosen, attentive_trace, choose_head, choose_name, menu
from attnscope.app.failures import is_expected, one_line
from attnscope.app.library import stamp_of, the_library
from attnscope.app.markdown_text import as_text
from attnscope.app.picture_looks import LOOKS, Look, Place, answer_places, picture_run
from attnscope.app.pictures import Told, draw, draw_text
from attnscope.app.scene_captures import (
    capture_scene,
    capture_token,
    is_of,
    named_objects,
    traced_scene,
)
from attnscope.app.screen import visible
from attnscope.figures import Mark, picture_overlay, token_ribbon
from attnscope.metrics import MetricError, Reading, measure
from attnscope.models.subjects import glimpse
from attnscope.traces import Trace, TraceError

__all__ = ["show"]

_MADE_UP = Mark(name="made up", color="#c8323f", plotly="x", matplotlib="X", glyph="✗")
_THERE = Mark(name="in the picture", color="#1b82c0", plotly="circle", matplotlib="o", glyph="●")
_SEEDS = 1_000_000


def show() -> None:
    """Show what a token of an answer owes to the parts of a picture."""
    st.title("Image")
    with st.expander("Capture a scene of glimpse", icon=":material/add_photo_alternate:"):
        _capture()
    chosen = _choose_trace()
    try:
        run = picture_run(chosen.trace)
    except MetricError as error:
        st.info(as_text(str(error)), icon=":material/hide_image:")
        return
    places = answer_places(chosen.trace)
    if not places:
        st.info("Nothing is said after the picture.", icon=":material/hide_image:")
        return
    scene = traced_scene(chosen.trace)
    picture = _picture(chosen, scene)
    wrong, right = _truth(chosen.trace, scene)
    _answer(chosen, wrong, right)
    left, middle, last = st.columns([2, 1, 2], vertical_alignment="bottom")
    with left:
        traced = [place for place in places if is_of(chosen.trace, place)]
        first = (traced or sorted(wrong) or places)[0]
        token = menu(
            "Token",
            TOKEN,
            places,
            first=first,
            written=lambda place: _written(chosen.trace, place, wrong),
        )
    head = None
    if middle.toggle("Of one head", key="of_one", bind="query-params"):
        with last:
            head = choose_head(chosen)
    _looks(chosen, Place(token=token, run=run, head=head), picture)


def _choose_trace() -> Chosen:
    """Return the trace that is chosen in the side bar, by the stack that speaks."""
    with st.sidebar:
        name = choose_name("Trace", TRACE)
    path = the_library().path_of(name)
    trace = attentive_trace(path)
    return Chosen(name=name, path=path, trace=trace, stack=trace.main_stack)


def _capture() -> None:
    left, middle, right = st.columns([1, 1, 1], vertical_alignment="bottom")
    seed = left.number_input("Seed", 0, _SEEDS, key="seed of scene")
    prior = middle.segmented_control(
        "The prior is", list(PRIORS), default="broken", required=True, key="prior of scene"
    )
    if not right.button("Capture the scene", icon=":material/play_arrow:", key="capture scene"):
        return
    bar = st.progress(0.0, text="waiting for the model")
    try:
        name = capture_scene(
            int(seed),
            prior or "broken",
            the_library(),
            lambda words, share: bar.progress(share, words),
        )
    except Exception as error:  # whatever goes wrong with a capture, the page goes on
        st.error(as_text(one_line(error)), icon=":material/error:")
        return
    finally:
        bar.empty()
    st.session_state[TRACE] = name  # before the address, menus ask what they said last
    st.session_state.pop(TOKEN, None)
    go_to("image", **{TRACE: name})


def _picture(chosen: Chosen, scene: glimpse.Scene | None) -> Any:
    """Return the picture: drawn again, or uploaded for as long as the page is open; or None."""
    if scene is not None:
        picture = glimpse.render(scene)
        st.sidebar.image(picture, caption="What the model saw", width="stretch")
        return picture
    file = st.sidebar.file_uploader(
        "The picture",
        type=["png", "jpg", "jpeg", "webp"],
        key=f"picture of {chosen.name}",
        help="A trace holds no pixels. What is given here lies below the patches, and is not kept.",
    )
    if file is None:
        st.sidebar.caption("A trace holds no pixels: without the picture, the patches stand alone.")
        return None
    try:
        picture = opened_picture(file.getvalue())
    except Exception as error:
        if not is_expected(error):
            raise
        st.sidebar.error(as_text(one_line(error)))
        return None
    st.sidebar.image(picture, width="stretch")
    return picture


def _truth(trace: Trace, scene: glimpse.Scene | None) -> tuple[set[int], set[int]]:
    """Return the places of words that name what is not in the picture, and what is."""
    if scene is None:
        return set(), set()
    there, places = glimpse.present_objects(scene), answer_places(trace)
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for one in named_objects(trace):
        found[one.name in there].update(places[one.start : one.stop])
    return found[False], found[True]


def _answer(chosen: Chosen, wrong: set[int], right: set[int]) -> None:
    """Show the answer, tinted by what each prediction gives to the picture."""
    trace, places = chosen.trace, answer_places(chosen.trace)
    try:
        mass = measure(trace, "image_attention", stack=trace.main_stack).mean("layer", "head")
    except MetricError as error:
        st.info(as_text(str(error)), icon=":material/block:")
        return
    own = mass.select(query=[place - 1 for place in places])
    tokens = [trace.tokens[place] for place in places]
    values = own.values.float()
    marks = {mark: places for mark, places in ((_MADE_UP, wrong), (_THERE, right)) if places}
    ribbon = token_ribbon(
        _of_tokens(own, tokens, places),
        marks=marks,
        title="The answer, by what each prediction gives to the picture",
    )
    table = pandas.DataFrame(
        {
            "position": places,
            "token": [visible(token) for token in tokens],
            "attention to the image": values.numpy(),
            "truth": [
                "made up" if place in wrong else "there" if place in right else ""
                for place in places
            ],
        }
    )
    words = "Each token of the answer with its attention to the image"
    draw_text(ribbon, Told(name="image answer", words=words, table=lambda: table))


def _of_tokens(reading: Reading, tokens: list[str], places: list[int]) -> Reading:
    """Return a reading of predicting queries as one of the tokens that they predict."""
    return replace(
        reading,
        axes=("token",),
        unit="share",
        coordinates={"token": tuple(tokens)},
        positions={"token": tuple(places)},
    )


def _written(trace: Trace, place: int, wrong: set[int]) -> str:
    mark = " (made up)" if place in wrong else ""
    return f"{place} {visible(trace.tokens[place])}{mark}"


def _looks(chosen: Chosen, place: Place, picture: Any) -> None:
    """Show the maps side by side, or why one of them cannot be made."""
    trace = _with_gradients(chosen, place.token)
    if place.run.grid is None:
        st.caption("The trace knows no grid of this picture: its tokens stand in one row.")
        picture = None
    if trace.provenance.gradient_target and not is_of(trace, place.token):
        st.caption(
            f"Gradients are of the {as_text(trace.provenance.gradient_target)}, not of this token."
        )
    columns = st.columns(2)
    for number, (name, look) in enumerate(LOOKS.items()):
        with columns[number % 2]:
            _look(trace, place, picture, (name, look))


def _look(trace: Trace, place: Place, picture: Any, named: tuple[str, Look]) -> None:
    name, look = named
    whose = "" if place.head is None or name != "attention" else f" of {place.head}"
    try:
        patches = look.measure(trace, place)
    except (MetricError, TraceError) as error:
        st.subheader(look.title, anchor=False)
        st.info(as_text(str(error)), icon=":material/block:")
        return
    values = patches.reshape(place.grid)
    word = visible(trace.tokens[place.token]) if look.of_token else "every token"
    overlay = picture_overlay(
        values, picture, label=look.label, title=look.title, caption=f"{word}{whose}"
    )
    rows, columns = place.grid
    table = pandas.DataFrame(
        [
            (row, column, float(values[row, column]))
            for row in range(rows)
            for column in range(columns)
        ],
        columns=["row", "column", look.label],
    )
    most = int(values.nan_to_num(-1).argmax())
    words = (
        f"{look.title}{whose} over {rows} by {columns} patches, for {word}; most at row "
        f"{most // columns}, column {most % columns}, in all {float(values.nansum()):.3g}."
    )
    draw(overlay, Told(name=f"image {name}", words=words, table=lambda: table))
    st.caption(look.means)


def _with_gradients(chosen: Chosen, token: int) -> Trace:
    """Return the trace with the token's own gradients, where the scene can be read again."""
    if traced_scene(chosen.trace) is None or is_of(chosen.trace, token):
        return chosen.trace
    try:
        return _token_trace(*stamp_of(chosen.path), token, chosen.trace)
    except Exception as error:
        if not is_expected(error):
            raise
        st.caption(as_text(one_line(error)))
        return chosen.trace


@st.cache_resource(max_entries=16, show_spinner="Taking the token's gradients")
def _token_trace(path: str, modified: int, size: int, token: int, _trace: Trace) -> Trace:
    return capture_token(_trace, token)
