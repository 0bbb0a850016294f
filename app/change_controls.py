"""What one chooses on the page Interventions: a model, what it is asked, and what is changed."""

from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.address import HEAD, LAYER, LONGEST, TRACE, keep, kept, recalled
from attnscope.app.asked_prompts import PRIORS, PromptRequest, prompt_ids, sees_pictures
from attnscope.app.change_methods import CHANGES, ChangeSettings, Strength, changes_for
from attnscope.app.choices import menu
from attnscope.app.library import LibraryError, shared_trace, the_library
from attnscope.app.live_models import live_models, shared_subject, was_loaded
from attnscope.app.markdown_text import as_text
from attnscope.figures import HeadName
from attnscope.models.subjects.glimpse.tasks import DESCRIBE
from attnscope.probes import Subject
from attnscope.traces import Trace, TraceError

__all__ = ["MODEL", "choose_change", "choose_layer_and_head", "choose_model", "choose_prompt"]

MODEL = "model"
"""The name by which the address keeps the model."""

_EXAMPLE = "numbers 3 18 10 target 11"
_SEEDS = 1_000_000
_OWN, _TYPED = "the trace's", "typed"
_PROMPT = "prompt"


def choose_model() -> Subject:
    """Return the model that is chosen in the side bar; stop the page until it is to be loaded.

    What somebody asks for once holds for all sessions.

    Raises:
        CaptureError: It cannot be loaded.
    """
    wanted = kept(MODEL)
    if wanted is not None and wanted not in live_models():
        st.warning(as_text(f"No model {wanted[:120]!r} can be loaded here; another one is used."))
    with st.sidebar:
        model = menu("Model", MODEL, live_models())
    if not was_loaded(model):
        st.caption(
            "Loading a model takes its time, and its memory: it is loaded when you ask for it."
        )
        if not st.button(
            as_text(f"Load {model}"), type="primary", icon=":material/memory:", key="load"
        ):
            st.stop()
        shared_subject(model)
        st.rerun()
    return shared_subject(model)


def choose_prompt(subject: Subject) -> PromptRequest:
    """Return what the model is asked."""
    if subject.name == "glimpse":
        return _choose_scene(subject)
    request = PromptRequest(model=subject.name)
    own = _traced_prompt(subject)
    if own:
        whose = st.segmented_control(
            "Prompt", [_OWN, _TYPED], default=_OWN, required=True, key="whose", bind="query-params"
        )
        if whose == _OWN:
            st.caption(as_text(" ".join(subject.tokenizer.convert_ids_to_tokens(own))))
            return replace(request, ids=own)
    return _choose_text(subject, request)


def choose_layer_and_head(subject: Subject) -> HeadName:
    """Return the layer and the head that are chosen, side by side where this is called."""
    layers, heads = shape_of(subject)
    left, right = st.columns(2)
    with left:
        layer = menu("Layer", LAYER, range(layers))
    with right:
        head = menu("Head", HEAD, range(heads))
    return HeadName(layer, head)


def choose_change(
    subject: Subject, segments: tuple[str, ...], *, image: bool
) -> tuple[str, ChangeSettings]:
    """Return the name of a method of `CHANGES`, and how it is set.

    Args:
        subject: The model.
        segments: The segments of the prompt.
        image: Whether the model is shown a picture.
    """
    titles = changes_for(image=image, matcher=subject.name == "glimpse")
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    with left:
        name = menu("Method", "method", list(titles), written=lambda own: titles[own])
    change = CHANGES[name]
    right.caption(as_text(change.does))
    columns = iter(st.columns(4))
    numbers = tuple((own.name, _number(next(columns), name, own)) for own in change.strengths)
    settings = ChangeSettings(strengths=numbers)
    layers, heads = shape_of(subject)
    if "layers" in change.takes:
        first = _recalled(LAYER, layers) if "heads" in change.takes else []
        chosen = _several(next(columns), "Layers", name, (layers, first))
        settings = replace(settings, layers=chosen)
    if "heads" in change.takes:
        chosen = _several(next(columns), "Heads", name, (heads, _recalled(HEAD, heads)))
        settings = replace(settings, heads=chosen)
    if "segments" in change.takes:
        settings = _segments(settings, segments)
    return name, settings


def shape_of(subject: Subject) -> tuple[int, int]:
    """Return how many layers a language model has, and how many heads in each."""
    config: Any = getattr(subject.model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text.num_hidden_layers), int(text.num_attention_heads)


def _choose_scene(subject: Subject) -> PromptRequest:
    left, middle, right = st.columns([1, 1, 2], vertical_alignment="bottom")
    seed = left.number_input(
        "Scene, by its seed", 0, _SEEDS, key="scene", bind="query-params", help="Held out."
    )
    prior = middle.segmented_control(
        "The prior is",
        list(PRIORS),
        default="broken",
        required=True,
        key="prior",
        bind="query-params",
        help="Broken: no shape stands beside its usual companion.",
    )
    text = right.text_input(
        "Question", DESCRIBE, max_chars=200, key="question", bind="query-params"
    )
    return PromptRequest(model=subject.name, text=text, scene=int(seed), prior=prior or "broken")


def _choose_text(subject: Subject, request: PromptRequest) -> PromptRequest:
    has_template = getattr(subject.tokenizer, "chat_template", None) is not None
    text = _typed(subject.name)
    if sees_pictures(subject):
        file = st.file_uploader(
            "Picture",
            type=["png", "jpg", "jpeg", "webp"],
            help="A link to this page does not hold it.",
        )
        if file is not None:
            return replace(request, text=text, picture=file.getvalue())
    chat = has_template and st.checkbox(
        "A message in a chat", value=True, key="chat", bind="query-params"
    )
    return replace(request, text=text, chat=chat)


def _typed(model: str) -> str:
    """Return the prompt that is typed; a short one stands in the address."""
    key, example = f"prompt {model}", _EXAMPLE if model == "countdown" else ""
    said = kept(_PROMPT)
    if key not in st.session_state:
        st.session_state[key] = example if said is None else said
    text = st.text_area("Prompt", max_chars=100_000, key=key)
    fits = len(text) <= LONGEST
    keep(**{_PROMPT: text if fits and text != example else None})
    if not fits:
        st.caption(
            f"A prompt of more than {LONGEST} characters: a link to this page leaves it out."
        )
    return text


def _traced_prompt(subject: Subject) -> tuple[int, ...]:
    """Return the prompt of the trace that other pages speak of, if this model read it."""
    name = recalled(TRACE)
    if name is None:
        return ()
    try:
        trace: Trace = shared_trace(the_library().path_of(name))
    except (LibraryError, TraceError, OSError):
        return ()
    return prompt_ids(trace) if trace.provenance.model == subject.name else ()


def _number(column: Any, method: str, strength: Strength) -> float:
    numbers = (strength.low, strength.high, strength.first, strength.step)
    return column.number_input(
        strength.label,
        *map(float, numbers),
        key=f"{method}-{strength.name}",
        bind="query-params",
    )


def _several(
    column: Any, label: str, method: str, numbers: tuple[int, list[int]]
) -> tuple[int, ...]:
    count, first = numbers
    return tuple(
        column.multiselect(
            label,
            range(count),
            default=first,
            key=f"{method}-{label.lower()}-of-{count}",
            bind="query-params",
            placeholder="all" if label == "Heads" else "the method's own",
        )
    )


def _recalled(name: str, count: int) -> list[int]:
    """Return the layer or head that the address or another page speaks of; at first none but 0."""
    text = recalled(name) or "0"
    return [int(text)] if text.isdigit() and int(text) < count else [0]


def _segments(settings: ChangeSettings, segments: tuple[str, ...]) -> ChangeSettings:
    left, right = st.columns(2)
    others = [name for name in dict.fromkeys(segments) if name != "response"]
    queries = left.selectbox(
        "Who no longer sees", ["response", *others], key="cut-from", bind="query-params"
    )
    first = others.index("image") if "image" in others else 0
    keys = right.selectbox(
        "What is no longer seen",
        [*others, "response"],
        index=first,
        key="cut-to",
        bind="query-params",
    )
    return replace(settings, queries=queries, keys=keys)
