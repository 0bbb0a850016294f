"""`load_model`: the model of a command line, a shipped one by its short name."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from attnscope.app.failures import CommandError
from attnscope.probes import Subject, load

__all__ = ["SHIPPED", "ModelChoice", "load_model", "model_label", "quiet_libraries"]

SHIPPED = ("countdown", "glimpse")
"""Short names of the models that come with attnscope."""

_DTYPES = ("auto", "bfloat16", "float16", "float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model as a command line names it.

    Attributes:
        name: A folder, a hub id, or the short name of a shipped model.
        revision: Branch, tag or commit on the hub.
        dtype: Type of the weights; None for the checkpoint's own, float32 where it is shipped.
        device: Where to put the model; None for a GPU where there is one.
        trust_remote_code: Run code that comes with the checkpoint.
    """

    name: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    trust_remote_code: bool = False


def load_model(choice: ModelChoice) -> Subject:
    """Return the model that was chosen, with its tokenizer.

    Raises:
        CommandError: There is no such folder, type or device.
        CaptureError: Nothing can be loaded by this name.
    """
    if choice.dtype is not None and choice.dtype not in _DTYPES:
        raise CommandError(f"no dtype {choice.dtype!r}; there are {', '.join(_DTYPES)}")
    _check_device(choice.device)
    quiet_libraries()
    if choice.name in SHIPPED:
        return _load_shipped(choice)
    _check_folder(choice.name)
    return load(
        choice.name,
        revision=choice.revision,
        device=choice.device,
        dtype=choice.dtype or "auto",
        trust_remote_code=choice.trust_remote_code,
    )


def model_label(choice: ModelChoice) -> str:
    """Return what tells the captures of one model from those of another.

    Example:
        >>> model_label(ModelChoice(name="org/model", revision="main", dtype="float32"))
        'org/model@main float32'
    """
    revision = f"@{choice.revision}" if choice.revision else ""
    return " ".join(filter(None, (f"{choice.name}{revision}", choice.dtype)))


def quiet_libraries() -> None:
    """Keep the model libraries from advising; bars only where somebody watches."""
    import transformers

    transformers.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()


def _load_shipped(choice: ModelChoice) -> Subject:
    weights = _shipped_weights(choice.name)
    if choice.revision is not None:
        raise CommandError(f"{choice.name} comes with attnscope and has no revisions")
    if not weights.is_dir():
        raise CommandError(f"this installation lacks the weights of {choice.name} ({weights})")
    subject = load(weights, device=choice.device, dtype=choice.dtype or "float32")
    return replace(subject, name=choice.name)


def _shipped_weights(name: str) -> Path:
    from attnscope.models.subjects import countdown, glimpse

    return {"countdown": countdown.WEIGHTS, "glimpse": glimpse.WEIGHTS}[name]


def _check_folder(name: str) -> None:
    """Refuse what can only be a folder and is none, before a hub is asked for it."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if not name or (looks_local and not Path(name).is_dir()):
        raise CommandError(
            f"no folder {name!r}; a model is a folder, a hub id, or one of {', '.join(SHIPPED)}"
        )


def _check_device(device: str | None) -> None:
    import torch

    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CommandError(f"no device {device!r} here: {reason}") from error
