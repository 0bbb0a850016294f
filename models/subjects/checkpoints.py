"""State of a run and weights on disk: written whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write the state of a run to `path`, and only then drop what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    torch.save(dict(state), unfinished)
    unfinished.replace(path)


def write_weights(
    model: PreTrainedModel, beside: PreTrainedTokenizerBase | ProcessorMixin, folder: Path
) -> None:
    """Write a model in bfloat16 and its tokenizer or processor, and only then drop what was there.

    Args:
        model: The model, which is left as it is.
        beside: What prepares its inputs.
        folder: Receives both.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    half = type(model)(model.config)
    half.to(torch.bfloat16)  # pyright: ignore[reportArgumentType] - decorated upstream
    half.load_state_dict(model.state_dict())
    if half.can_generate():
        half.generation_config = model.generation_config
    half.save_pretrained(unfinished)
    beside.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
