"""`both_ways`: an answer as the model gives it, and as it gives it with its attention changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.app.live_models import Step
from attnscope.app.pictured_answers import Decoding, PicturedPrompt, answer, said
from attnscope.interventions import Intervention, intervening
from attnscope.metrics import METRICS, MetricError, measure
from attnscope.probes import Encoded, capture
from attnscope.traces import Trace

__all__ = [
    "READINGS",
    "BothWays",
    "Spoken",
    "answer_log_probabilities",
    "both_ways",
    "differing",
    "response_of",
]

READINGS = ("entropy", "waad", "image_attention")
"""What is measured of both answers: metrics of the catalog, means over layers and heads."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spoken:
    """An answer.

    Attributes:
        words: What it says.
        tokens: Its tokens.
        readings: Of each token, what the query that predicts it reads, by metric.
        undefined: Why a metric says nothing of it.
        log_probability: Of the plain answer, summed over its tokens, in nats.
    """

    words: str
    tokens: tuple[str, ...]
    readings: Mapping[str, Float[Tensor, " token"]]
    undefined: Mapping[str, str]
    log_probability: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BothWays:
    """One prompt, answered by a model as it is and under a change.

    Attributes:
        plain: The model's own answer.
        changed: Its answer under the change.
    """

    plain: Spoken
    changed: Spoken

    def table(self) -> pandas.DataFrame:
        """Return the mean of each reading over the tokens of each answer."""
        rows = [
            ("tokens", "", float(len(self.plain.tokens)), float(len(self.changed.tokens))),
            (
                "log-probability of the plain answer",
                "nats",
                self.plain.log_probability,
                self.changed.log_probability,
            ),
        ]
        rows += [
            (METRICS[name].title, METRICS[name].unit or "share", *self._means(name))
            for name in READINGS
            if name in self.plain.readings or name in self.changed.readings
        ]
        return pandas.DataFrame(rows, columns=["what", "unit", "as it is", "changed"])

    def _means(self, name: str) -> tuple[float, float]:
        found = (way.readings.get(name) for way in (self.plain, self.changed))
        one, other = (float("nan") if own is None else float(own.nanmean()) for own in found)
        return one, other


def both_ways(
    prompt: PicturedPrompt,
    make: Callable[[], Sequence[Intervention]],
    most: int,
    step: Step,
) -> BothWays:
    """Return both answers, decoded greedily.

    Args:
        prompt: What is asked.
        make: Makes the change.
        most: Most tokens of an answer.
        step: Told how far it is.

    Raises:
        CaptureError: Model and prompt do not fit.
        InterventionError: The change does not fit the model.
    """
    decoding = Decoding(max_tokens=most)
    step("preparing the change", 0.05)
    change = list(make())
    step("answering as it is", 0.1)
    plain = answer(prompt, (), decoding)
    step("answering under the change", 0.35)
    changed = answer(prompt, change, decoding)
    step("reading the attention", 0.7)
    own = _spoken(prompt, plain, (), plain)
    step("reading the changed attention", 0.85)
    other = _spoken(prompt, changed, change, plain)
    step("done", 1.0)
    return BothWays(plain=own, changed=other)


def differing(tokens: Sequence[str], other: Sequence[str]) -> set[int]:
    """Return the places of tokens that another text does not have there.

    Example:
        >>> sorted(differing("a red ring on wood".split(), "a blue ring on wood .".split()))
        [1]
    """
    matcher = SequenceMatcher(a=list(tokens), b=list(other), autojunk=False)
    same = {
        place
        for block in matcher.get_matching_blocks()
        for place in range(block.a, block.a + block.size)
    }
    return set(range(len(tokens))) - same


def response_of(answered: Encoded) -> list[int]:
    """Return the positions of an answer's tokens."""
    return answered.sequences[answered.main_sequence].segments["response"]


def answer_log_probabilities(
    prompt: PicturedPrompt, answered: Encoded, interventions: Sequence[Intervention]
) -> Float[Tensor, " token"]:
    """Return the log-probability of each token of an answer, teacher-forced, in nats.

    Args:
        prompt: What was asked.
        answered: Prompt and answer.
        interventions: What is changed meanwhile.
    """
    subject, places = prompt.subject, response_of(answered)
    inputs = {name: value.to(subject.device) for name, value in answered.model_inputs.items()}
    with intervening(subject, *interventions, encoded=prompt.encoded), torch.no_grad():
        logits = subject.model(**inputs).logits[0, [place - 1 for place in places]]
    said_ids = inputs["input_ids"][0, places]
    return logits.float().log_softmax(-1).gather(-1, said_ids[:, None])[:, 0].cpu()


def _spoken(
    prompt: PicturedPrompt, answered: Encoded, change: Sequence[Intervention], plain: Encoded
) -> Spoken:
    with intervening(prompt.subject, *change, encoded=prompt.encoded), torch.no_grad():
        trace: Trace = capture(prompt.subject, answered)
    places = response_of(answered)
    readings: dict[str, Tensor] = {}
    undefined: dict[str, str] = {}
    for name in READINGS:
        if name == "image_attention" and "image" not in trace.segments.names:
            continue
        try:
            values = measure(trace, name, stack=trace.main_stack).values
        except MetricError as error:
            undefined[name] = str(error)
            continue
        readings[name] = values.flatten(0, 1).float().nanmean(0)[[place - 1 for place in places]]
    return Spoken(
        words=said(prompt, answered),
        tokens=tuple(trace.tokens[place] for place in places),
        readings=readings,
        undefined=undefined,
        log_probability=float(answer_log_probabilities(prompt, plain, change).sum()),
    )
