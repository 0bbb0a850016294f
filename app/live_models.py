"""The models that may be captured live: those that ship, and those the server was started with.

A name that somebody types is never loaded, and code that comes with a checkpoint never run.
"""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from attnscope.app.failures import CommandError
from attnscope.app.library import Library, free_path
from attnscope.app.server import MODELS
from attnscope.app.subjects import SHIPPED, ModelChoice, load_model
from attnscope.probes import Collector, Run, Subject, capture
from attnscope.traces import Observation, Trace

__all__ = [
    "RUNNING",
    "LiveRequest",
    "Step",
    "capture_live",
    "live_models",
    "longest_input",
    "shared_subject",
    "was_loaded",
]

Step = Callable[[str, float], object]
"""Told what is being done, and how much of it is done: from 0 to 1."""

_LOADED_MODELS = 2
_LOADED: set[str] = set()
_MOST_TOKENS = 8192
RUNNING = threading.Lock()
"""Held by whoever runs a shared model: its hooks are one capture's, or one change's, at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRequest:
    """What somebody typed.

    Attributes:
        model: One of `live_models()`.
        text: The text, or the user's message.
        response: The model's own words after it; empty if there are none.
        answers: Most tokens that the model may answer with; 0 for no answer.
        chat: Whether the text is a message in a chat, set in the model's own template.
        name: What the trace is to be called.
    """

    model: str
    text: str
    response: str = ""
    answers: int = 0
    chat: bool = False
    name: str = ""


def live_models() -> list[str]:
    """Return the names of the models that may be captured live."""
    given = json.loads(os.environ.get(MODELS, "[]"))
    return list(dict.fromkeys([*given, *SHIPPED]))


@st.cache_resource(max_entries=_LOADED_MODELS, show_spinner="Loading the model")
def shared_subject(model: str) -> Subject:
    """Return a loaded model, the same for all sessions; the last two stay loaded.

    Raises:
        CommandError: It is none of `live_models()`, or cannot be found.
        CaptureError: It cannot be loaded.
    """
    if model not in live_models():
        raise CommandError(f"no model {model!r} here; there are {', '.join(live_models())}")
    subject = load_model(ModelChoice(name=model))
    _LOADED.add(model)
    return subject


def was_loaded(model: str) -> bool:
    """Return whether somebody had this server load a model before."""
    return model in _LOADED


def capture_live(request: LiveRequest, library: Library, step: Step) -> str:
    """Capture what a model makes of a text, keep it in the store, and return the trace's name.

    One capture runs at a time; others wait for it.

    Raises:
        CommandError: The text is empty or too long, or a response is both given and asked for.
        CaptureError: Model and text do not fit.
        OSError: The store cannot be written.
    """
    if not request.text.strip():
        raise CommandError("the text is empty")
    if request.response and request.answers:
        raise CommandError("the response is given; let the model answer 0 tokens, or take it out")
    step("loading the model", 0.0)
    subject = shared_subject(request.model)
    with RUNNING:
        trace = _captured(subject, request, step)
    step("writing", 0.99)
    library.folder.mkdir(parents=True, exist_ok=True)
    path = free_path(library.folder, request.name or request.text[:40])
    trace.save(path)
    return path.relative_to(library.folder).as_posix()


def _captured(subject: Subject, request: LiveRequest, step: Step) -> Trace:
    inputs: Any = request.text
    response = request.response or None
    if request.chat:
        inputs = [{"role": "user", "content": request.text}]
        if response is not None:
            inputs.append({"role": "assistant", "content": response})
            response = None
    if request.answers:
        most = min(request.answers, _MOST_TOKENS)
        counter = _Counter(most, step)
        inputs = subject.generate(inputs, max_new_tokens=most, streamer=counter)
    encoded = subject.encode(inputs, response=response)
    length = len(encoded.sequences[encoded.main_sequence])
    most = longest_input(subject)
    if length > most:
        raise CommandError(f"the text is {length:,} tokens long; at most {most:,} are taken here")
    recorder = _Watched(Collector(), _layers(subject), step)
    return capture(subject, encoded, into=recorder)


def longest_input(subject: Subject) -> int:
    """Return how many tokens are taken: what the model was made for, within our own bound."""
    config = getattr(subject.model, "config", None)
    return min(getattr(config, "max_position_embeddings", None) or _MOST_TOKENS, _MOST_TOKENS)


def _layers(subject: Subject) -> int:
    return getattr(getattr(subject.model, "config", None), "num_hidden_layers", 0)


class _Counter:
    """Counts the tokens that a model generates; transformers calls it a streamer."""

    def __init__(self, most: int, step: Step) -> None:
        self.most, self.step, self.seen = most, step, -1  # the prompt comes first

    def put(self, _: Any) -> None:
        self.seen += 1
        self.step(f"answering: {self.seen} tokens", 0.1 + 0.6 * min(1.0, self.seen / self.most))

    def end(self) -> None:
        self.step("answered", 0.7)


class _Watched:
    """A recorder that says which layer it has reached."""

    def __init__(self, recorder: Collector, layers: int, step: Step) -> None:
        self.recorder, self.layers, self.step, self.count = recorder, max(layers, 1), step, 0
        self.needs, self.riders = recorder.needs, recorder.riders

    def start(self) -> None:
        self.recorder.start()

    def record(self, observation: Observation) -> None:
        self.count += 1
        share = 0.7 + 0.28 * min(1.0, self.count / self.layers)
        self.step(f"capturing: layer {observation.site.layer}", share)
        self.recorder.record(observation)

    def finish(self, run: Run) -> Trace:
        return self.recorder.finish(run)
