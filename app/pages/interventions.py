"""Interventions: an answer as it is and with the attention changed, and what one head is for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas
import streamlit as st
import torch
from torch import Tensor

from attnscope.app.address import HEAD, LAYER, TRACE, keep, recalled
from attnscope.app.asked_prompts import PromptRequest, asked_prompt, scene_of
from attnscope.app.change_controls import (
    choose_change,
    choose_layer_and_head,
    choose_model,
    choose_prompt,
    shape_of,
)
from attnscope.app.change_methods import CHANGES
from attnscope.app.changed_answers import READINGS, BothWays, Spoken, both_ways, differing
from attnscope.app.downloads import offer
from attnscope.app.failures import one_line
from attnscope.app.falsification import Falsification, falsify, rivals_of
from attnscope.app.falsify_link import DOES, FALSIFY
from attnscope.app.live_models import RUNNING, Step
from attnscope.app.markdown_text import as_text
from attnscope.app.pictured_answers import PicturedPrompt
from attnscope.app.pictures import Told, draw_text
from attnscope.figures import Mark, token_ribbon
from attnscope.metrics import METRICS, Reading
from attnscope.models.subjects import glimpse
from attnscope.probes import Subject

__all__ = ["show"]

_CHANGE = "change"
_MOST_TOKENS = 512
_DIFFERS = Mark(name="differs", color="#c8323f", plotly="diamond", matplotlib="D", glyph="◆")
_DONE = "done by interventions"


def show() -> None:
    """Show what a model says as it is, and what it says when its attention is changed."""
    st.title("Interventions")
    keep(**{name: recalled(name) for name in (TRACE, LAYER, HEAD)})  # said again, for a link
    subject = choose_model()
    does = st.segmented_control(
        "What to do",
        [_CHANGE, FALSIFY],
        default=_CHANGE,
        required=True,
        key=DOES,
        bind="query-params",
        label_visibility="collapsed",
    )
    request = choose_prompt(subject)
    try:
        prompt = asked_prompt(request)
    except Exception as error:  # whatever a model makes of a text, the page goes on
        st.info(as_text(one_line(error)), icon=":material/block:")
        return
    if prompt.picture is not None:
        st.sidebar.image(prompt.picture, caption="What the model sees", width="stretch")
    (_falsify if does == FALSIFY else _change)(subject, request, prompt)


def _change(subject: Subject, request: PromptRequest, prompt: PicturedPrompt) -> None:
    segments = prompt.encoded.sequences[prompt.encoded.main_sequence].segments.names
    name, settings = choose_change(subject, segments, image=prompt.picture is not None)
    most = _choose_length()
    asked = (request, name, settings, most)
    done = _once(
        "Generate both ways",
        asked,
        lambda step: both_ways(prompt, lambda: [CHANGES[name].build(prompt, settings)], most, step),
    )
    if isinstance(done, BothWays):
        _show_both(done, request)


def _falsify(subject: Subject, request: PromptRequest, prompt: PicturedPrompt) -> None:
    st.caption(
        "A bright map proves nothing. Here the head is taken away (its output is 0), and, each by "
        "itself, random heads of the same layer: does the answer owe it more than them?"
    )
    head = choose_layer_and_head(subject)
    left, right = st.columns(2)
    count = left.number_input(
        "Random heads of the layer", 1, 32, 4, key="rivals", bind="query-params"
    )
    seed = right.number_input("Seed of the draw", 0, 1_000_000, 0, key="seed", bind="query-params")
    rivals = rivals_of(head.head, shape_of(subject)[1], int(seed), int(count))
    if len(rivals) < count:
        st.caption(f"The layer has {len(rivals)} other heads; all of them are taken.")
    most = _choose_length()
    asked = (request, str(head), tuple(rivals), most)
    done = _once(f"Falsify {head}", asked, lambda step: falsify(prompt, head, rivals, most, step))
    if isinstance(done, Falsification):
        _show_falsification(done)


def _choose_length() -> int:
    slider = st.slider(
        "Most tokens of an answer", 4, _MOST_TOKENS, 64, key="most", bind="query-params"
    )
    return int(slider)


def _once(label: str, asked: tuple[object, ...], run: Callable[[Step], Any]) -> Any:
    """Return what was run for these settings; run it when the button is pressed."""
    known = st.session_state.get(_DONE, {}).get(asked)
    if not st.button(label, type="primary", icon=":material/play_arrow:", key="run"):
        return known
    bar = st.progress(0.0, text="waiting for the model")
    try:
        with RUNNING:
            known = run(lambda words, share: bar.progress(share, words))
    except Exception as error:  # whatever a model makes of a change, the page goes on
        st.error(as_text(one_line(error)), icon=":material/error:")
        return None
    finally:
        bar.empty()
    st.session_state[_DONE] = {asked: known}
    return known


def _show_both(done: BothWays, request: PromptRequest) -> None:
    names = [name for name in READINGS if name in {*done.plain.readings, *done.changed.readings}]
    if done.plain.tokens == done.changed.tokens:
        st.info("Both answers are the same, token by token.")
    tinted = st.segmented_control(
        "Tinted by",
        names,
        format_func=lambda name: METRICS[name].title,
        default=names[0],
        required=True,
        key="tint",
        bind="query-params",
    )
    ways = {"as it is": done.plain, "changed": done.changed}
    others = (done.changed, done.plain)
    for column, (way, spoken), other in zip(st.columns(2), ways.items(), others, strict=True):
        with column:
            _show_way(way, spoken, other, (str(tinted), _limits(done, str(tinted))))
            _truth(spoken.words, request)
    table = done.table()
    st.subheader("Side by side", anchor=False)
    st.dataframe(table, hide_index=True, alt="Means over the tokens of both answers")
    offer("interventions", table=lambda: table)
    for name, reason in done.changed.undefined.items():
        st.caption(f"{METRICS[name].title} of the changed answer: {as_text(reason)}")
    st.caption(
        "Readings are means over all heads and layers at the query that predicts each token, of "
        "the model as it then runs. The log-probability is that of the plain answer, read again."
    )


def _show_way(
    way: str, spoken: Spoken, other: Spoken, tint: tuple[str, tuple[float, float]]
) -> None:
    name, limits = tint
    values = spoken.readings.get(name, torch.full((len(spoken.tokens),), torch.nan))
    metric = METRICS[name]
    places = differing(spoken.tokens, other.tokens)
    ribbon = token_ribbon(
        _reading(spoken.tokens, values, metric.title, metric.unit),
        marks={_DIFFERS: places} if places else {},
        limits=limits,
        title=f"{way.capitalize()}, {metric.title.lower()}",
    )
    table = pandas.DataFrame(
        {
            "token": spoken.tokens,
            **{METRICS[own].title: found.numpy() for own, found in spoken.readings.items()},
            "differs": [place in places for place in range(len(spoken.tokens))],
        }
    )
    words = f"The answer {way}, each token with its readings"
    draw_text(ribbon, Told(name=f"answer {way}", words=words, table=lambda: table))


def _truth(words: str, request: PromptRequest) -> None:
    """Say what of an answer is not in its scene, where the scene is known."""
    if request.scene is None:
        return
    there = glimpse.present_objects(scene_of(request.scene, request.prior))
    said = set(glimpse.mentioned_objects(words))
    made_up = ", ".join(sorted(said - there)) or "none of what it names"
    st.markdown(
        f"Not in the picture: **{as_text(made_up)}**. {len(said & there)} of {len(there)} "
        "objects that are there are named."
    )


def _show_falsification(done: Falsification) -> None:
    st.subheader(f"The answer without {done.head}", anchor=False)
    st.markdown(f"**{as_text(done.verdict)}**")
    table = done.table()
    st.dataframe(
        table,
        hide_index=True,
        alt="What the answer owes this head and random heads of its layer",
        column_config={
            name: st.column_config.NumberColumn(format="%.3f")
            for name in ("log-probability (nats)", "per token (nats)")
        },
    )
    offer("falsification", table=lambda: table)
    tokens = pandas.DataFrame(
        {
            "token": done.tokens,
            **{
                f"without head {effect.head}": effect.change.numpy()
                for effect in (done.own, *done.rivals)
            },
        }
    )
    ribbon = token_ribbon(
        replace(
            _reading(done.tokens, done.own.change, "Change of log-probability", "nats"),
            bounds=(None, None),
        ),
        title=f"The plain answer without {done.head}: blue less likely, red more",
    )
    told = Told(
        name="falsified tokens",
        words="By how much each token of the plain answer becomes less likely",
        table=lambda: tokens,
    )
    draw_text(ribbon, told)


def _limits(done: BothWays, name: str) -> tuple[float, float]:
    """Return one scale for both answers."""
    found = [way.readings[name] for way in (done.plain, done.changed) if name in way.readings]
    most = max(float(values.nan_to_num().max()) for values in found)
    return 0.0, most if most > 0 else 1.0


def _reading(tokens: tuple[str, ...], values: Tensor, title: str, unit: str) -> Reading:
    return Reading(
        name="answer",
        title=title,
        values=values,
        axes=("token",),
        unit=unit,
        bounds=(0.0, None),
        coordinates={"token": tokens},
    )
