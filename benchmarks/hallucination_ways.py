"""The ways of decoding that are compared on the small LLaVA, each for a batch of questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from attnscope.interventions import (
    AGLA,
    PAINT,
    SGRS,
    VAR,
    VHR,
    Intervention,
    LocoRE,
    mask_image,
    match_image,
)
from attnscope.metrics import find_sink_dimensions, scaled_tau
from attnscope.models.subjects.glimpse import (
    Scene,
    question_chat,
    render,
    sample_scenes,
)
from attnscope.models.subjects.glimpse.tasks import DESCRIBE
from attnscope.probes import Collector, Encoded, Subject, capture
from attnscope.traces import Trace

__all__ = ["GREEDY", "WAYS", "Batch", "Way", "sink_bound", "sink_dimensions"]

GREEDY = "greedy"
_PROMPTS = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions on scenes, padded on the left as the model takes them.

    Attributes:
        subject: The model.
        scenes: A scene for each question.
        questions: The questions.
    """

    subject: Subject
    scenes: Sequence[Scene]
    questions: Sequence[str]
    pictures: list[Any] = field(init=False)
    tensors: dict[str, torch.Tensor] = field(init=False)
    inputs: list[Encoded] = field(init=False)

    def __post_init__(self) -> None:
        """Draw the pictures and encode them with the questions."""
        drawn = {id(scene): scene for scene in self.scenes}  # many questions are on one scene
        drawn = {key: render(scene) for key, scene in drawn.items()}
        pictures = [drawn[id(scene)] for scene in self.scenes]
        object.__setattr__(self, "pictures", pictures)
        object.__setattr__(self, "tensors", self.encoded(pictures))
        object.__setattr__(self, "inputs", list(self.subject.encode_each(self.tensors)))

    def encoded(self, pictures: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return the questions beside some pictures."""
        processor = self.subject.processor
        texts = [
            processor.apply_chat_template(question_chat(text), add_generation_prompt=True)
            for text in self.questions
        ]
        made = processor(text=texts, images=list(pictures), padding=True, return_tensors="pt")
        return dict(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of decoding.

    Attributes:
        make: Makes its interventions for a batch; takes the matcher and the sink dimensions, too.
        options: What `generate` is told.
    """

    make: Callable[[Batch, Subject, Sequence[int]], Sequence[Intervention]]
    options: Mapping[str, Any] = field(default_factory=dict)


def _none(batch: Batch, matcher: Subject, dimensions: Sequence[int]) -> Sequence[Intervention]:
    return ()


def _agla(batch: Batch, matcher: Subject, dimensions: Sequence[int]) -> Sequence[Intervention]:
    """Mask each picture by what the matcher finds of its question."""
    masked = [
        mask_image(picture, match_image(matcher, picture, question))
        for picture, question in zip(batch.pictures, batch.questions, strict=True)
    ]
    return (AGLA(batch.subject.model, batch.tensors, batch.encoded(masked)),)


def _var(batch: Batch, matcher: Subject, dimensions: Sequence[int]) -> Sequence[Intervention]:
    """Redistribute where the model has sink dimensions at all; rho as against hallucination."""
    if not dimensions:
        return ()
    return (VAR(dimensions=dimensions, tau=sink_bound(batch.subject), rho=0.5),)


_DRAWN = {"do_sample": True, "top_k": 5, "temperature": 1.0, "top_p": 1.0}

WAYS: Mapping[str, Way] = {
    GREEDY: Way(make=_none),
    "VHR": Way(make=lambda *_: (VHR(),)),
    "LocoRE": Way(make=lambda *_: (LocoRE(),)),
    "VAR": Way(make=_var),
    "PAINT": Way(make=lambda *_: (PAINT(),)),
    "AGLA": Way(make=_agla),
    "SGRS": Way(make=lambda *_: (SGRS(),)),
    "LocoRE + SGRS": Way(make=lambda *_: (LocoRE(), SGRS())),
    "drawn from 5": Way(make=_none, options=_DRAWN),
    "SGRS, drawn": Way(make=lambda *_: (SGRS(),), options={"do_sample": True}),
}
"""Every way, with the published settings; greedy unless it says otherwise."""


def sink_bound(subject: Subject) -> float:
    """Return VAR's published bound, scaled to the width of the model."""
    model: Any = subject.model
    return scaled_tau(model.config.text_config.hidden_size)


def sink_dimensions(subject: Subject) -> tuple[int, ...]:
    """Return the sink dimensions of the model, found on scenes that it is not tested on."""
    scenes = sample_scenes(_PROMPTS, 0, split="train")
    batch = Batch(subject, scenes, [DESCRIBE] * _PROMPTS)
    states = []
    for encoded in batch.inputs:
        with torch.no_grad():
            trace: Trace = capture(subject, encoded, into=Collector(hidden=True))
        hidden = [one.hidden for one in trace.observe() if one.hidden is not None]
        states.append(torch.stack(hidden))
    return find_sink_dimensions(states, sink_bound(subject))
