"""The methods against hallucination by the names and options of a command line."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnscope.app.failures import CommandError
from attnscope.app.layers import parse_layers
from attnscope.app.pictured_answers import PicturedPrompt, pictured_prompt
from attnscope.interventions import (
    AGLA,
    PAINT,
    SGRS,
    VAR,
    VHR,
    Intervention,
    LocoRE,
    after_image,
    class_row,
    earlier_outputs,
    mask_image,
    match_image,
    mean_row,
    post_softmax_raw,
    post_softmax_renorm,
    pre_softmax_log,
)
from attnscope.probes import Subject, with_blank_image, with_noise_image, without_image

__all__ = ["METHODS", "PLAIN", "Method", "Settings", "make_interventions", "parse_methods"]

PLAIN = "plain"
"""The name of decoding without a method."""

Parse = Callable[[str], Any]
Settings = Mapping[str, Mapping[str, Any]]
"""Options by method and name."""

_SETTING = re.compile(r"(\w+)\.(\w+)=(.*)", re.DOTALL)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise CommandError(f"a number is needed, not {text!r}") from error


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise CommandError(f"a whole number is needed, not {text!r}")
    return int(text)


def _one_of(choices: Mapping[str, Any]) -> Parse:
    def parse(text: str) -> Any:
        if text not in choices:
            raise CommandError(f"one of {', '.join(choices)} is needed, not {text!r}")
        return choices[text]

    return parse


_yes_or_no = _one_of({"yes": True, "no": False})


def _dimensions(text: str) -> tuple[int, ...]:
    return tuple(_whole(part.strip()) for part in text.split(","))


def _existing(text: str) -> str:
    if text.startswith((".", "/", "~")) and not Path(text).is_dir():
        raise CommandError(f"no folder {text!r}")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method.

    Attributes:
        build: Makes it for one prompt, of its options.
        options: How each option is read.
    """

    build: Callable[[PicturedPrompt, Mapping[str, Any]], Intervention]
    options: Mapping[str, Parse]


def _agla(prompt: PicturedPrompt, options: Mapping[str, Any]) -> AGLA:
    """Mask what the matcher does not find in the question, and read the rest beside the whole."""
    chosen = dict(options)
    matcher = _matcher(prompt.subject, chosen.pop("matcher", None))
    match = match_image(matcher, prompt.picture, prompt.question)
    masked = pictured_prompt(prompt.subject, mask_image(prompt.picture, match), prompt.question)
    return AGLA(
        prompt.subject.model, prompt.encoded.model_inputs, masked.encoded.model_inputs, **chosen
    )


def _matcher(subject: Subject, name: str | None) -> Subject:
    known = _MATCHERS.get(name or subject.name)
    if known is None:
        known = _MATCHERS[name or subject.name] = _load_matcher(subject, name)
    return known


_MATCHERS: dict[str, Subject] = {}


def _load_matcher(subject: Subject, name: str | None) -> Subject:
    if name is None:
        from attnscope.models.subjects.glimpse import MATCHER_WEIGHTS, load_matcher

        if subject.name != "glimpse":
            raise CommandError(
                "agla needs a model that matches pictures with texts: give its folder or hub id, "
                "as in --set agla.matcher=Salesforce/blip-itm-large-coco"
            )
        if not MATCHER_WEIGHTS.is_dir():
            raise CommandError(
                f"this installation lacks the matcher of glimpse ({MATCHER_WEIGHTS})"
            )
        return Subject(*load_matcher(), name="glimpse matcher")
    import transformers

    try:
        model: Any = transformers.BlipForImageTextRetrieval.from_pretrained(name)
        processor = transformers.BlipProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"{name!r} is no BLIP matcher that can be loaded: {error}") from error
    return Subject(model.to(subject.device).eval(), processor, name=name)


def _var(prompt: PicturedPrompt, options: Mapping[str, Any]) -> VAR:
    from attnscope.interventions import SINK_DIMENSIONS

    if "dimensions" not in options:
        published = "; ".join(
            f"{name} {','.join(map(str, places))}" for name, places in SINK_DIMENSIONS.items()
        )
        raise CommandError(
            "var needs the sink dimensions of the language model, as in "
            f"--set var.dimensions=1415,2533; published are {published}"
        )
    return VAR(**options)


METHODS: Mapping[str, Method] = {
    "vhr": Method(
        build=lambda prompt, options: VHR(**options),
        options={
            "alpha": _number,
            "layers": parse_layers,
            "removes_outliers": _yes_or_no,
            "squared": _yes_or_no,
            "sample_std": _yes_or_no,
            "whole_prompt": _yes_or_no,
            "remove": _one_of(
                {"drop": without_image, "blank": with_blank_image, "noise": with_noise_image}
            ),
        },
    ),
    "locore": Method(
        build=lambda prompt, options: LocoRE(**options),
        options={
            "beta": _number,
            "window": _whole,
            "layers": parse_layers,
            "counts_prompt": _yes_or_no,
            "normalize": _one_of(
                {"raw": post_softmax_raw, "renorm": post_softmax_renorm, "log": pre_softmax_log}
            ),
        },
    ),
    "var": Method(
        build=_var,
        options={
            "dimensions": _dimensions,
            "tau": _number,
            "removed": _number,
            "rho": _number,
            "least_mass": _number,
            "by_portion": _yes_or_no,
            "needs_visual_sink": _yes_or_no,
            "layers": parse_layers,
            "each_step": _yes_or_no,
        },
    ),
    "paint": Method(
        build=lambda prompt, options: PAINT(**options),
        options={
            "alpha": _number,
            "beta": _number,
            "local_share": _number,
            "layers": parse_layers,
            "patch_weights": _one_of({"class_row": class_row, "mean_row": mean_row}),
        },
    ),
    "agla": Method(build=_agla, options={"alpha": _number, "beta": _number, "matcher": _existing}),
    "sgrs": Method(
        build=lambda prompt, options: SGRS(**options),
        options={
            "alpha": _number,
            "candidates": _whole,
            "tries": _whole,
            "window": _whole,
            "layers": parse_layers,
            "keys": _one_of({"response": earlier_outputs, "after_image": after_image}),
            "norm": _one_of({"row": "row", "matrix": "matrix", "none": None}),
        },
    ),
}
"""Every method that can be named."""


def parse_methods(
    methods: Sequence[str], settings: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], Settings]:
    """Return the parts of each method that was named, and the options of each part.

    Args:
        methods: Names; several joined by `+` go together, in this order.
        settings: Options, as in `vhr.alpha=2`.

    Raises:
        CommandError: A method or option does not exist, or a value is none of its kind.

    Example:
        >>> parse_methods(["locore+sgrs"], ["locore.beta=0.2"])
        ({'locore+sgrs': ('locore', 'sgrs')}, {'locore': {'beta': 0.2}})
    """
    wanted = {name: tuple(name.split("+")) for name in dict.fromkeys(methods)}
    for part in (part for parts in wanted.values() for part in parts):
        if part not in METHODS:
            raise CommandError(f"no method {part!r}; there are {', '.join(METHODS)}")
    used = {part for parts in wanted.values() for part in parts}
    options: dict[str, dict[str, Any]] = {}
    for text in settings:
        part, name, value = _setting(text)
        if part not in used:
            raise CommandError(f"--set {text} is of a method that is not run; give --method {part}")
        options.setdefault(part, {})[name] = value
    return wanted, options


def _setting(text: str) -> tuple[str, str, Any]:
    match = _SETTING.fullmatch(text)
    if match is None:
        raise CommandError(f"--set {text!r} is no setting; write one as in vhr.alpha=2")
    part, name, value = match.groups()
    if part not in METHODS:
        raise CommandError(f"--set {text}: no method {part!r}; there are {', '.join(METHODS)}")
    known = METHODS[part].options
    if name not in known:
        raise CommandError(f"--set {text}: {part} has no {name!r}; it has {', '.join(known)}")
    try:
        return part, name, known[name](value)
    except CommandError as error:
        raise CommandError(f"--set {text}: {error}") from error


def make_interventions(
    parts: Sequence[str], prompt: PicturedPrompt, settings: Settings
) -> list[Intervention]:
    """Return a method's interventions, in the order of its parts.

    Raises:
        CommandError: A method lacks an option that it needs.
        InterventionError: An option makes no sense.
    """
    return [METHODS[part].build(prompt, settings.get(part, {})) for part in parts]
