"""Weights on disk: written whole or not at all, in bfloat16."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def write_whole(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write model and processor to `folder` in bfloat16, and only then drop what was there."""
    import torch

    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    half = type(model)(model.config)
    half.to(torch.bfloat16)  # pyright: ignore[reportArgumentType] - decorated upstream
    half.load_state_dict(model.state_dict())
    if half.can_generate():
        half.generation_config = model.generation_config
    half.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
