"""One forward pass of a model, and the facts of it that are not attention."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.hearing import changes_on
from attnscope.probes.module_paths import module_paths
from attnscope.probes.subject import Subject
from attnscope.probes.targets import Target
from attnscope.probes.weights import weights_fingerprint
from attnscope.traces import Provenance, TokenSequence

__all__ = ["forward", "hidden_states", "missed_modules", "next_token_facts", "provenance"]

_ROWS = 512


def forward(
    subject: Subject, encoded: Encoded, *, keep_logits: bool
) -> Float[Tensor, "..."] | None:
    """Return the logits of one forward pass, or None where the model has none.

    They are `(position, vocabulary)`, `(1, class)` of a classifier, and whatever tensor a module
    returns that is no whole model.

    Raises:
        CaptureError: The model does not take these inputs.
    """
    model = subject.model
    accepted = _accepted(model)
    tensors: dict[str, Any] = {
        name: value.to(subject.device) for name, value in encoded.model_inputs.items()
    }
    if "pixel_values" in tensors and "pixel_values" not in accepted and "x" in accepted:
        tensors["x"] = tensors.pop("pixel_values")  # what timm calls a picture
    if "input_ids" in tensors and "input_ids" not in accepted and "input" in accepted:
        tensors["input"] = tensors.pop("input_ids")  # what TransformerLens calls tokens
    # Models of transformers swallow what they do not know, a picture given to a text model too.
    unknown = [name for name in tensors if name not in accepted]
    if unknown:
        raise CaptureError(
            f"{type(model).__name__} takes no {unknown}; its forward takes {accepted}"
        )
    if "use_cache" in accepted:
        tensors["use_cache"] = False
    if not keep_logits and "logits_to_keep" in accepted:
        tensors["logits_to_keep"] = (
            1  # a long context times a large vocabulary is more than all attention
        )
    output = model(**tensors)
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None or not isinstance(logits, Tensor):
        return None
    return logits[0] if logits.ndim == 3 else logits


def _accepted(model: nn.Module) -> list[str]:
    """Return what a model's forward takes by name, through wrappers (PEFT, DDP, compiling)."""
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    unwrap: Any = getattr(model, "get_base_model", None)
    held = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
    inner = unwrap() if callable(unwrap) else held
    return named + (_accepted(inner) if isinstance(inner, nn.Module) else [])


def next_token_facts(
    logits: Float[Tensor, "..."] | None, sequence: TokenSequence | None
) -> tuple[Float[Tensor, " token"] | None, Float[Tensor, " token"] | None]:
    """Return each token's log-probability and the entropy of the distribution it was drawn from.

    Both belong to the prediction made one position earlier, and are NaN for the first token.
    """
    if (
        logits is None
        or sequence is None
        or sequence.ids is None
        or logits.shape[0] != len(sequence)
    ):
        return None, None
    ids = torch.tensor(sequence.ids, device=logits.device)
    chosen = torch.full((len(ids),), torch.nan)
    entropy = torch.full((len(ids),), torch.nan)
    for start in range(0, len(ids) - 1, _ROWS):
        rows = slice(start, min(start + _ROWS, len(ids) - 1))
        after = slice(rows.start + 1, rows.stop + 1)
        log_p = logits[rows].detach().float().log_softmax(-1)
        chosen[after] = log_p.gather(-1, ids[after, None]).squeeze(-1).cpu()
        entropy[after] = -(log_p.exp() * log_p).nansum(-1).cpu()
    return chosen, entropy


@contextmanager
def hidden_states(
    model: nn.Module, blocks: Mapping[str, nn.Module], into: dict[str, Tensor]
) -> Iterator[None]:
    """Keep the first tensor that enters each layer, while the context is open."""

    def keep(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            state = args[0] if args else options.get("hidden_states")
            if isinstance(state, Tensor):
                into[path] = state

        return hook

    with ExitStack() as stack:
        for path, block in blocks.items():
            handle = block.register_forward_pre_hook(keep(path), with_kwargs=True)
            stack.callback(handle.remove)
        yield


class _Called:
    """The attention modules that ran."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}

    def without(self, heard: Mapping[str, None]) -> tuple[str, ...]:
        """Return the kinds of attention modules that ran and were not heard."""
        missed = [
            kind
            for path, kind in self.paths.items()
            if not any(
                name == path or name.startswith(path + ".") or path.startswith(name + ".")
                for name in heard
            )
        ]
        return tuple(dict.fromkeys(missed))


@contextmanager
def missed_modules(model: nn.Module) -> Iterator[_Called]:
    """Watch which attention modules run, so that what was not captured can be named."""
    called = _Called()

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            called.paths[path] = type(module).__name__

        return hook

    with ExitStack() as stack:
        for module, path in module_paths(model).items():
            kind = type(module).__name__.lower()
            if ("attention" in kind or "attn" in kind) and "output" not in kind:
                handle = module.register_forward_pre_hook(note(path))
                stack.callback(handle.remove)
        yield called


def provenance(subject: Subject, target: Target | None, missed: tuple[str, ...]) -> Provenance:
    """Return where the numbers come from."""
    config = getattr(subject.model, "config", None)
    parameter = next(subject.model.parameters(), None)
    notes = {"architecture": type(subject.model).__name__}
    if missed:
        notes["not captured"] = ", ".join(missed)
    if changes := changes_on(subject.model):
        notes["interventions"] = "; ".join(changes)
    return Provenance(
        model=subject.name or getattr(config, "_name_or_path", "") or type(subject.model).__name__,
        revision=subject.revision or getattr(config, "_commit_hash", None),
        dtype=None if parameter is None else str(parameter.dtype).removeprefix("torch."),
        versions={
            name: found
            for name in ("attnscope", "torch", "transformers")
            if (found := _version(name))
        },
        weights=weights_fingerprint(subject.model),
        gradient_target=None if target is None else target.name,
        notes=notes,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
