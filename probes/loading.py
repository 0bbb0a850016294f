"""`load`: a model and its tokenizer by folder or hub id, never running code that comes with it."""

from pathlib import Path
from typing import Any

from attnscope.probes.adapters.timm_models import is_timm, load_timm
from attnscope.probes.errors import CaptureError
from attnscope.probes.subject import Subject

__all__ = ["load"]


def load(
    model: str | Path,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> Subject:
    """Return a model and its tokenizer or processor from a folder or the hub.

    The class with the richest head that the configuration names is taken: an image-text model,
    a language model, an encoder-decoder, else the bare model.

    Args:
        model: A folder in the format of transformers or timm, or a hub id; those that begin with
            `timm/` are timm's, which are read from safetensors alone.
        revision: Branch, tag or commit on the hub.
        device: Where to put the model; where there is a GPU, by default there.
        dtype: Type of the weights; by default the checkpoint's own.
        trust_remote_code: Run code that comes with the checkpoint.

    Raises:
        CaptureError: There is no such model, or no class of transformers fits it.
    """
    if is_timm(str(model)):
        return load_timm(str(model), revision=revision, device=device, dtype=dtype)
    import torch
    import transformers

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    name = str(model)
    config = _first(
        name, "a configuration", lambda: transformers.AutoConfig.from_pretrained(name, **options)
    )
    found = _model_class(transformers, config)
    loaded = _first(name, "weights", lambda: found.from_pretrained(name, dtype=dtype, **options))
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    processor = _processor(transformers, name, options)
    return Subject(loaded.to(where).eval(), processor, name=name, revision=revision or "")


def _model_class(transformers: Any, config: Any) -> Any:
    """Return the automatic class that knows the configuration, heads that speak first."""
    for name in ("AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"):
        automatic = getattr(transformers, name)
        if type(config) in automatic._model_mapping:
            return automatic
    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModel


def _processor(transformers: Any, name: str, options: dict[str, Any]) -> Any:
    for automatic in (
        transformers.AutoProcessor,
        transformers.AutoTokenizer,
        transformers.AutoImageProcessor,
    ):
        try:
            return automatic.from_pretrained(name, **options)
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
    return None


def _first(name: str, what: str, attempt: Any) -> Any:
    try:
        return attempt()
    except (OSError, ValueError, KeyError) as error:
        place = "folder" if Path(name).exists() else "folder or hub id"
        raise CaptureError(
            f"{name!r} is no {place} from which {what} can be loaded: {error}"
        ) from error
