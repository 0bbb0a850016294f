"""`CHANGES`: what the page Interventions can change while a model answers, one entry each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from attnscope.app.failures import CommandError
from attnscope.app.hallucination_methods import METHODS
from attnscope.app.pictured_answers import PicturedPrompt
from attnscope.interventions import EdgeKnockout, HeadAblation, HeadScaling, Intervention
from attnscope.metrics import find_sink_dimensions, scaled_tau
from attnscope.probes import Collector, capture
from attnscope.traces import Trace

__all__ = ["CHANGES", "Change", "ChangeSettings", "Strength", "changes_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """A number of a method.

    Attributes:
        name: What the method calls it.
        label: What the page calls it.
        low: Its least value.
        high: Its largest value here.
        first: Where it begins.
        step: By how much a click moves it; whole numbers are counts.
    """

    name: str
    label: str
    low: float
    high: float
    first: float
    step: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings:
    """How a method is set.

    Attributes:
        strengths: Its numbers, as pairs of name and value.
        layers: Which layers; none for the method's own.
        heads: Which heads; none for all.
        queries: The segment that no longer sees.
        keys: The segment that is no longer seen.
    """

    strengths: tuple[tuple[str, float], ...] = ()
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    queries: str = "response"
    keys: str = ""

    @property
    def numbers(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return dict(self.strengths)

    @property
    def where(self) -> dict[str, Any]:
        """Return the layers as methods take them: nothing where the method's own are meant."""
        return {"layers": list(self.layers)} if self.layers else {}

    @property
    def whom(self) -> dict[str, Any]:
        """Return layers and heads as methods take them."""
        return self.where | ({"heads": list(self.heads)} if self.heads else {})


Build = Callable[[PicturedPrompt, ChangeSettings], Intervention]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A method.

    Attributes:
        title: What the menu calls it.
        does: What it does, in a sentence.
        build: Makes it for a prompt.
        strengths: Its numbers.
        takes: Which of `layers`, `heads` and `segments` can be chosen.
        needs: `nothing`, `image`, or `matcher`, which glimpse alone has here.
    """

    title: str
    does: str
    build: Build
    strengths: tuple[Strength, ...] = ()
    takes: frozenset[str] = frozenset()
    needs: str = "nothing"


def _method(name: str) -> Build:
    """Return what makes a method of the command line, whose options the strengths are."""

    def build(prompt: PicturedPrompt, settings: ChangeSettings) -> Intervention:
        counts = {each.name for each in CHANGES[name].strengths if each.step >= 1}
        options = {key: int(value) if key in counts else value for key, value in settings.strengths}
        return METHODS[name].build(prompt, options | settings.where)

    return build


def _var(prompt: PicturedPrompt, settings: ChangeSettings) -> Intervention:
    """Look for the sink dimensions on the prompt itself (ours), and redistribute."""
    with torch.no_grad():
        trace: Trace = capture(prompt.subject, prompt.encoded, into=Collector(hidden=True))
    states = [seen.hidden for seen in trace.observe(trace.main_stack)]
    hidden = torch.stack([state for state in states if state is not None])
    tau = scaled_tau(hidden.shape[-1])
    dimensions = find_sink_dimensions([hidden], tau)
    if not dimensions:
        raise CommandError(
            f"no dimension of {prompt.subject.name} is massive at the first token of this prompt "
            f"(none reaches {tau:.3g}), so that VAR has no sink to take attention from"
        )
    found = {"dimensions": dimensions, "tau": tau}
    return METHODS["var"].build(prompt, found | settings.numbers | settings.where)


def _cut(prompt: PicturedPrompt, settings: ChangeSettings) -> EdgeKnockout:
    return EdgeKnockout(queries=settings.queries, keys=settings.keys, **settings.whom)


_LAYERS = frozenset({"layers"})
_HEADS = frozenset({"layers", "heads"})

CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "ablation": Change(
            title="Head ablation",
            does="Takes away what the chosen heads give, before W_O.",
            build=lambda prompt, settings: HeadAblation(**settings.whom),
            takes=_HEADS,
        ),
        "scaling": Change(
            title="Head scaling",
            does="Multiplies what the chosen heads give, before W_O; 1 changes nothing.",
            build=lambda prompt, settings: HeadScaling(**settings.numbers, **settings.whom),
            strengths=(
                Strength(name="factor", label="Factor", low=-2.0, high=8.0, first=2.0, step=0.25),
            ),
            takes=_HEADS,
        ),
        "knockout": Change(
            title="Edge knockout",
            does="Some tokens no longer see others (Geva et al. 2023, arXiv:2304.14767). The last "
            "token of the prompt, which predicts the first word, is none of the response.",
            build=_cut,
            takes=_HEADS | {"segments"},
        ),
        "vhr": Change(
            title="VHR",
            does="Strengthens the heads that mind the image (He et al. 2024, arXiv:2412.13949).",
            build=_method("vhr"),
            strengths=(
                Strength(name="alpha", label="Factor", low=0.0, high=6.0, first=2.0, step=0.25),
            ),
            takes=_LAYERS,
            needs="image",
        ),
        "locore": Change(
            title="LocoRE",
            does="More attention to the last words (Zhang et al. 2026, arXiv:2601.20279).",
            build=_method("locore"),
            strengths=(
                Strength(name="beta", label="Gain", low=0.0, high=3.0, first=0.15),
                Strength(name="window", label="Words", low=1.0, high=20.0, first=5.0, step=1.0),
            ),
            takes=_LAYERS,
        ),
        "var": Change(
            title="VAR",
            does="From sinks to the rest of the image (Kang et al. 2025, arXiv:2503.03321).",
            build=_var,
            strengths=(
                Strength(name="removed", label="Share taken", low=0.0, high=1.0, first=0.4),
                Strength(name="rho", label="Least non-sink ratio", low=0.0, high=1.0, first=0.5),
            ),
            takes=_LAYERS,
            needs="image",
        ),
        "paint": Change(
            title="PAINT",
            does="Higher scores for informed image tokens (arXiv:2501.12206).",
            build=_method("paint"),
            strengths=(
                Strength(name="alpha", label="Gain, local", low=0.0, high=3.0, first=0.7),
                Strength(name="beta", label="Gain, summary", low=0.0, high=3.0, first=0.3),
            ),
            takes=_LAYERS,
            needs="image",
        ),
        "agla": Change(
            title="AGLA",
            does="Beside the picture, its part that matters to the question (arXiv:2406.12718).",
            build=_method("agla"),
            strengths=(
                Strength(name="alpha", label="Weight of the part", low=0.0, high=5.0, first=2.0),
                Strength(name="beta", label="Least share of the top", low=0.0, high=1.0, first=0.5),
            ),
            needs="matcher",
        ),
        "sgrs": Change(
            title="SGRS",
            does="Rejects tokens that neglect what was said (Zhang et al. 2026, arXiv:2601.20279).",
            build=_method("sgrs"),
            strengths=(Strength(name="alpha", label="Threshold", low=0.0, high=3.0, first=0.6),),
            takes=_LAYERS,
        ),
    }
)
"""Every method by its name in the address."""


def changes_for(*, image: bool, matcher: bool) -> dict[str, str]:
    """Return the titles of the methods that apply, by name.

    Args:
        image: Whether there is a picture.
        matcher: Whether a model that matches pictures with texts is at hand.

    Example:
        >>> sorted(set(changes_for(image=True, matcher=True)) - set(changes_for(image=False, \
matcher=False)))
        ['agla', 'paint', 'var', 'vhr']
    """
    met = {"nothing": True, "image": image, "matcher": image and matcher}
    return {name: change.title for name, change in CHANGES.items() if met[change.needs]}
