"""Models of timm from the hub or a folder, from safetensors alone, and pictures as their input."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.probes.errors import CaptureError
from attnscope.probes.subject import Subject

__all__ = ["PictureProcessor", "is_timm", "load_timm"]

_WEIGHTS = "model.safetensors"


class PictureProcessor:
    """Turns pictures into what a model of timm takes, as its own data configuration says.

    It is called like the processors of transformers, so that
    `capture(Subject(model, PictureProcessor(model)), "", images=[picture])` works.

    Args:
        model: A model of timm.
    """

    def __init__(self, model: nn.Module) -> None:
        from timm.data.config import resolve_data_config
        from timm.data.transforms_factory import create_transform

        self._transform: Any = create_transform(**resolve_data_config({}, model=model))

    def __call__(
        self, text: str = "", images: Sequence[Any] = (), return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """Return the pictures as `x`, `(batch, channel, row, column)`.

        Raises:
            CaptureError: There is no picture, there are words, or other tensors are asked for.
        """
        if text or not images or return_tensors != "pt":
            raise CaptureError(
                f"a vision model of timm reads pictures alone, as tensors of torch; got "
                f"{len(images)} pictures, text {text!r} and return_tensors={return_tensors!r}. "
                'Say capture(subject, "", images=[picture])'
            )
        return {"x": torch.stack([self._transform(image.convert("RGB")) for image in images])}


def is_timm(model: str) -> bool:
    """Return whether a name is of timm: `timm/...` on the hub, or a folder with its configuration.

    Example:
        >>> is_timm("timm/vit_tiny_patch16_224.augreg_in21k"), is_timm("Qwen/Qwen2.5-0.5B")
        (True, False)
    """
    if not Path(model).exists():
        return model.startswith("timm/")
    config = _folder_of(model) / "config.json"
    return config.is_file() and "architecture" in json.loads(config.read_text())


def load_timm(
    model: str, *, revision: str | None = None, device: str | None = None, dtype: str = "auto"
) -> Subject:
    """Return a model of timm with its picture processor.

    Weights are read from safetensors only; a checkpoint that would have to be unpickled is refused.

    Args:
        model: `timm/...` on the hub, a folder that timm's `save_for_hf` wrote, or the safetensors
            file in such a folder.
        revision: Branch, tag or commit on the hub.
        device: Where to put the model; where there is a GPU, by default there.
        dtype: Type of the weights; by default the checkpoint's own.

    Raises:
        CaptureError: There is no such model, or no safetensors file that fits it.
    """
    import timm

    source, overlay = _local(model) if Path(model).exists() else _remote(model, revision)
    try:
        loaded: Any = timm.create_model(source, pretrained=True, pretrained_cfg_overlay=overlay)
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise CaptureError(f"{model!r} cannot be loaded by timm: {error}") from error
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = None if dtype == "auto" else getattr(torch, dtype)
    loaded = loaded.to(device=where, dtype=kind).eval()
    return Subject(loaded, PictureProcessor(loaded), name=model, revision=revision or "")


def _local(model: str) -> tuple[str, dict[str, Any]]:
    """Return timm's name of a folder, and what makes it read the safetensors file there."""
    folder = _folder_of(model)
    weights = Path(model) if Path(model).is_file() else folder / _WEIGHTS
    if weights.suffix != ".safetensors" or not weights.is_file():
        found = sorted(path.name for path in folder.iterdir())
        raise CaptureError(
            f"{model!r} has no {_WEIGHTS}, and nothing is ever unpickled; the folder has {found}"
        )
    # Without a source, timm reads the file that is named and looks for no other format.
    return f"local-dir:{folder}", {"source": "", "file": str(weights), "custom_load": False}


def _remote(model: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Return timm's name of a model on the hub, and what makes it read the safetensors file."""
    name = f"hf-hub:{model}" + (f"@{revision}" if revision else "")
    return name, {"hf_hub_filename": _WEIGHTS}


def _folder_of(model: str) -> Path:
    path = Path(model)
    return path.parent if path.is_file() else path
