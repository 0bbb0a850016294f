"""One contract for every architecture of transformers.

`python -m benchmarks.families` checks each on a tiny random model and writes the table of
probes/README.md: a captured map equals the model's own eager map (of a layer without one, what the
operator makes of the values equals the layer's own scan), the logits under capture are what they
were, and hooks, modes and configurations are left alone.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from attnscope.probes import CaptureError, Subject, capture
from attnscope.probes.adapters import state_space
from attnscope.probes.attention_call import AttentionCall
from benchmarks.results import PROBES_PAGE, write_section
from benchmarks.tiny_models import FAMILIES, Inputs, tiny

__all__ = ["Outcome", "check"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check: sites captured and the largest error, or the refusal."""

    sites: int
    error: float
    logits_error: float
    refusal: str = ""


def check(name: str) -> Outcome:
    """Return how far a family's captured maps are from its eager maps, or why it is refused."""
    model, inputs = tiny(name, "eager" if name in _EAGER_ONLY else "sdpa")
    before = _logits(model, inputs)
    seen: list[Tensor] = []
    with _configuration_unchanged(model):
        handle = model.register_forward_hook(
            lambda module, args, output: seen.append(_speech_of(output))
        )
        try:
            trace = capture(Subject(model), inputs)
        except CaptureError as error:
            return Outcome(0, torch.nan, torch.nan, str(error))
        finally:
            handle.remove()
    scans = _scan_errors(model, inputs)
    paths = {site.path.split("[")[0] for site in trace.sites} - set(scans)
    maps = _eager_maps(name, inputs, model, paths) if paths else {}
    errors = [*scans.values()]
    for site in trace.sites:
        if site.path in scans:
            continue
        expected = maps[site.path.split("[")[0]].pop(0)
        errors.append(
            float((trace.attention[site.stack, site.layer].dense() - expected).abs().max())
        )
    return Outcome(len(trace.sites), max(errors), float((before - seen[0]).abs().max()))


_EAGER_ONLY = (
    *("Gemma 2", "gpt-oss", "GPT-J", "BLOOM", "MPT", "DeBERTa-v2"),
    *("Mamba", "Falcon Mamba", "Mamba-2", "RWKV", "XLNet"),
)
"""Families that offer no fused kernel of the library's own to compare with."""

_OWN_SOFTMAX = ("GPT-J", "BLOOM", "Falcon", "MPT", "DeBERTa-v2")
"""Families that do not go through the library's seam; they return their maps when asked."""


def _scan_errors(model: nn.Module, inputs: Inputs) -> dict[str, float]:
    """Return how far operators applied to the values are from the layers' own scans, by path.

    Scans have no fixed size as a map has: errors are shares of the largest output, where it is
    above 1.
    """
    names = {module: path for path, module in model.named_modules()}
    errors: dict[str, float] = {}

    def compare(call: AttentionCall) -> Tensor:
        read = call.attention.apply(call.value)
        size = call.output.abs().max().clamp_min(1.0)
        errors[names[call.module]] = float((read - call.output).abs().max() / size)
        return call.output

    with torch.no_grad(), state_space.listening(model, compare, lambda module: ()):
        model(**inputs)
    return errors


def _logits(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return _speech_of(model(**inputs))


def _speech_of(output: Any) -> Tensor:
    fields = ("logits", "logits_per_image", "last_hidden_state")
    return next(value for field in fields if (value := getattr(output, field, None)) is not None)


def _eager_maps(
    name: str, inputs: Inputs, like: nn.Module, paths: set[str]
) -> dict[str, list[Tensor]]:
    """Return the maps that the model's own eager functions compute, in the order of their calls."""
    model, _ = tiny(name, "eager")
    model.load_state_dict(like.state_dict())
    if name in _OWN_SOFTMAX:
        with torch.no_grad():
            returned = model(**inputs, output_attentions=True).attentions
        return {path: [*found] for path, found in zip(sorted(paths), returned, strict=True)}
    names = {module: path for path, module in model.named_modules()}
    maps: dict[str, list[Tensor]] = {path: [] for path in paths}

    def keeping(eager: Callable[..., Any]) -> Callable[..., Any]:
        def function(module: nn.Module, *args: Any, **options: Any) -> Any:
            output, pattern = eager(module, *args, **options)
            maps[names[module]].extend(pattern)
            return output, pattern

        return function

    def weighing(module: nn.Module, args: Any, options: Any) -> None:
        asked = options | {"need_weights": True, "average_attn_weights": False}
        plain: Any = nn.MultiheadAttention.forward
        maps[names[module]].extend(plain(module, *args, **asked)[1])

    heard = [model.get_submodule(path) for path in paths]
    of_torch = [module for module in heard if isinstance(module, nn.MultiheadAttention)]
    sources = {sys.modules[type(module).__module__] for module in heard if module not in of_torch}
    with ExitStack() as stack, torch.no_grad():
        for module in of_torch:
            handle = module.register_forward_pre_hook(weighing, with_kwargs=True)
            stack.callback(handle.remove)
        for source in sources:
            wrapped = keeping(source.eager_attention_forward)
            stack.enter_context(patch.object(source, "eager_attention_forward", wrapped))
        model(**inputs)
    return maps


@contextmanager
def _configuration_unchanged(model: nn.Module) -> Iterator[None]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def state() -> list[Any]:
        hooks = [
            len(module._forward_pre_hooks) + len(module._forward_hooks)
            for module in model.modules()
        ]
        configs = [
            getattr(module.config, "_attn_implementation", None)
            for module in model.modules()
            if hasattr(module, "config")
        ]
        return [hooks, configs, sorted(ALL_ATTENTION_FUNCTIONS.valid_keys()), model.training]

    before = state()
    yield
    if state() != before:
        raise CaptureError("a capture left something of itself in the model")


def main() -> None:
    """Write the table of families."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    lines = [
        "| family | sites | largest error of a map | of a logit | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in FAMILIES:
        outcome = check(name)
        if outcome.refusal:
            reason = outcome.refusal.partition("(")[2].partition(")")[0]
            lines.append(f"| {name} | | | | refused: {reason} |")
        else:
            errors = f"{outcome.error:.0e} | {outcome.logits_error:.0e}"
            lines.append(f"| {name} | {outcome.sites} | {errors} | works |")
    write_section("families", "\n".join(lines), PROBES_PAGE)


if __name__ == "__main__":
    main()
