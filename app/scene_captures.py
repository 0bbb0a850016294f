"""`capture_scene`: what glimpse says of one of its scenes, with gradients, kept in the store."""

from dataclasses import replace
from typing import Any

import torch

from attnscope.app.asked_prompts import PromptRequest, asked_prompt, scene_of
from attnscope.app.failures import CommandError
from attnscope.app.falsify_link import PRIOR, SCENE
from attnscope.app.library import Library, free_path
from attnscope.app.live_models import RUNNING, Step
from attnscope.app.mention_tokens import Mention, mention_tokens
from attnscope.app.picture_looks import answer_places
from attnscope.app.pictured_answers import Decoding, answer
from attnscope.models.subjects import glimpse
from attnscope.models.subjects.glimpse.tasks import DESCRIBE
from attnscope.probes import Collector, Logit, capture
from attnscope.traces import Trace

__all__ = ["capture_scene", "capture_token", "is_of", "named_objects", "traced_scene"]

_OF = "gradient of token"
_MOST_TOKENS = 64
_NAMES = {name: name for name in glimpse.OBJECTS}


def capture_scene(seed: int, prior: str, library: Library, step: Step) -> str:
    """Let glimpse describe a scene, keep the trace in the store, and return its name there.

    The gradients are of the logit of the first word that names something made up, or else of the
    last word that names something.

    Raises:
        CommandError: There is no such scene.
        OSError: The store cannot be written.
    """
    scene = scene_of(seed, prior)
    step("describing the scene", 0.1)
    with RUNNING:
        trace = _captured(seed, prior, None)
        step("taking gradients", 0.5)
        there = glimpse.present_objects(scene)
        named = named_objects(trace)
        wrong = [one for one in named if one.name not in there]
        chosen = (wrong or named[-1:])[:1]
        places = answer_places(trace)
        place = places[chosen[0].stop - 1] if chosen else places[0]
        trace = _captured(seed, prior, place)
    step("writing", 0.9)
    library.folder.mkdir(parents=True, exist_ok=True)
    path = free_path(library.folder, f"scene {seed}, prior {prior}")
    trace.save(path)
    return path.relative_to(library.folder).as_posix()


def capture_token(trace: Trace, place: int) -> Trace:
    """Return a trace of a scene with the gradients of another token's logit.

    Raises:
        CommandError: The trace is of no scene, or glimpse now says something else.
    """
    notes = trace.provenance.notes
    if traced_scene(trace) is None:
        raise CommandError("this trace is of no scene of glimpse, which alone can be read again")
    with RUNNING:
        again = _captured(int(notes[SCENE]), notes[PRIOR], place)
    if again.tokens != trace.tokens:
        raise CommandError("glimpse says something else of the scene than it did in this trace")
    return again


def is_of(trace: Trace, place: int) -> bool:
    """Return whether a trace's gradients are those of a token."""
    return trace.provenance.notes.get(_OF) == str(place)


def traced_scene(trace: Trace) -> glimpse.Scene | None:
    """Return the scene that a trace is of, drawn again from its notes; None if of no scene."""
    notes = trace.provenance.notes
    seed = notes.get(SCENE, "")
    if trace.provenance.model != "glimpse" or not seed.isdigit() or PRIOR not in notes:
        return None
    try:
        return scene_of(int(seed), notes[PRIOR])
    except CommandError:  # a trace from elsewhere may say anything
        return None


def named_objects(trace: Trace) -> list[Mention]:
    """Return the objects that an answer of glimpse names; a token is a word."""
    words = [trace.tokens[place] for place in answer_places(trace)]
    return mention_tokens([" ".join(words[: stop + 1]) for stop in range(len(words))], _NAMES)


def _captured(seed: int, prior: str, place: int | None) -> Trace:
    request = PromptRequest(model="glimpse", text=DESCRIBE, scene=seed, prior=prior)
    prompt = asked_prompt(request)
    answered = answer(prompt, (), Decoding(max_tokens=_MOST_TOKENS))
    recorder: Any = Collector(hidden=True)
    notes = {SCENE: str(seed), PRIOR: prior}
    if place is None:
        with torch.no_grad():
            trace: Trace = capture(prompt.subject, answered, into=recorder)
    else:
        ids = answered.model_inputs["input_ids"][0]
        target = Logit(token=int(ids[place]), position=place - 1)
        trace = capture(prompt.subject, answered, gradient=target, into=recorder)
        notes[_OF] = str(place)
    known = {**trace.provenance.notes, **notes}
    return replace(trace, provenance=replace(trace.provenance, notes=known))
