"""Train the subject from scratch: `python -m attnscope.models.subjects.glimpse.train`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
import typer
from jaxtyping import Float
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from attnscope.models.subjects.checkpoints import write_state, write_weights
from attnscope.models.subjects.glimpse.architecture import WEIGHTS, build_subject, subject_config
from attnscope.models.subjects.glimpse.conversations import (
    IGNORED,
    Conversations,
    pack,
    stream_scenes,
)
from attnscope.models.subjects.glimpse.patches import PatchReadOut, patch_labels, tower_features
from attnscope.models.subjects.glimpse.processor import EOS, PAD, build_processor, vocabulary
from attnscope.models.subjects.glimpse.scenes import Scene
from attnscope.models.subjects.optimizers import (
    build_optimizers,
    schedule_factor,
    set_rates,
)

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

CHECKPOINT = Path("glimpse_checkpoint.pt")
GRADIENT_LIMIT = 1.0
LONGEST_ANSWER = 64

StageName = Literal["tower", "decoder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How one part of the model is taught."""

    steps: int
    batch: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a run depends on; in the second stage the tower is frozen, as LLaVA's is."""

    tower: Stage = field(default_factory=lambda: Stage(steps=500, batch=48, rate=6e-3))
    decoder: Stage = field(default_factory=lambda: Stage(steps=1200, batch=32, rate=4e-3))
    seed: int = 0
    tower_layers: int = 3
    layers: int = 5
    hidden: int = 128
    heads: int = 8
    device: str = "cpu"
    checkpoint_every: int = 100


@dataclass(slots=True, kw_only=True)
class Run:
    """What changes while training goes on; `stage` and `step` say which batch comes next."""

    model: LlavaForConditionalGeneration
    read_out: PatchReadOut
    optimizers: list[Optimizer]
    stage: StageName = "tower"
    step: int = 0


def start_run(settings: Settings) -> Run:
    """Return a run at step zero of the tower's stage."""
    config = subject_config(
        tower=settings.tower_layers,
        layers=settings.layers,
        hidden=settings.hidden,
        heads=settings.heads,
    )
    model = build_subject(config, seed=settings.seed)
    model.to(settings.device)  # pyright: ignore[reportArgumentType] - decorated upstream
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        read_out = PatchReadOut(settings.hidden).to(settings.device)
    run = Run(model=model, read_out=read_out, optimizers=[])
    enter_stage(run, "tower", settings)
    return run


def enter_stage(run: Run, name: StageName, settings: Settings) -> None:
    """Put a run at step zero of a stage, with new optimizers for what that stage teaches."""
    tower = run.model.model.vision_tower
    taught = name == "tower"
    tower.requires_grad_(taught)
    parts = (
        [tower, run.read_out]
        if taught
        else [
            run.model.model.language_model,
            run.model.model.multi_modal_projector,
            run.model.lm_head,
        ]
    )
    rate = getattr(settings, name).rate
    run.optimizers = build_optimizers(torch.nn.ModuleList(parts), matrix_rate=rate, rate=rate)
    run.stage, run.step = name, 0


def save_checkpoint(run: Run, path: Path) -> None:
    """Write the run to `path` whole or not at all."""
    state = {
        "model": run.model.state_dict(),
        "read_out": run.read_out.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "stage": run.stage,
        "step": run.step,
    }
    write_state(state, path)


def resume_run(settings: Settings, path: Path) -> Run:
    """Return the run that `path` holds, or a run at step zero if there is no such file."""
    run = start_run(settings)
    if not path.exists():
        return run
    state = torch.load(path, map_location=settings.device, weights_only=True)
    run.model.load_state_dict(state["model"])
    run.read_out.load_state_dict(state["read_out"])
    enter_stage(run, state["stage"], settings)
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    run.step = state["step"]
    return run


def turn_loss(
    model: LlavaForConditionalGeneration, batch: Conversations
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean cross entropy of the captions' tokens and of the short answers' tokens."""
    hidden = model.model(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values,
        attention_mask=batch.visible,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    said = batch.labels[:, 1:] != IGNORED
    labels, in_caption = batch.labels[:, 1:][said], batch.is_caption[:, 1:][said]
    losses = cross_entropy(model.lm_head(hidden[:, :-1][said]), labels, reduction="none")
    return losses[in_caption].mean(), losses[~in_caption].mean()


def _loss(run: Run, scenes: list[Scene], settings: Settings) -> Float[Tensor, ""]:
    if run.stage == "tower":
        features = tower_features(run.model.model.vision_tower, scenes)
        return run.read_out(features, patch_labels(scenes).to(settings.device))
    generator = np.random.default_rng([settings.seed, run.step])
    batch = pack(scenes, generator).to(settings.device)
    return torch.stack(turn_loss(run.model, batch)).sum()


def train(run: Run, settings: Settings) -> Iterator[float]:
    """Take the steps that are left, changing `run` in place, and yield the loss of each."""
    if run.stage == "tower":
        yield from _train_stage(run, settings.tower, settings)
        enter_stage(run, "decoder", settings)
    yield from _train_stage(run, settings.decoder, settings)


def _train_stage(run: Run, stage: Stage, settings: Settings) -> Iterator[float]:
    # Other pictures in each stage: a million batches apart.
    first = run.step if run.stage == "tower" else 1_000_000 + run.step
    scenes = stream_scenes(settings.seed, stage.batch, first)
    run.model.train()
    while run.step < stage.steps:
        set_rates(
            run.optimizers,
            [stage.rate] * len(run.optimizers),
            schedule_factor(run.step, stage.steps),
        )
        loss = _loss(run, next(scenes), settings)
        loss.backward()
        for optimizer in run.optimizers:
            for group in optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], GRADIENT_LIMIT)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        run.step += 1
        yield loss.item()


def export_weights(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Write model and processor to `folder`, whole or not at all."""
    tokens, generation = vocabulary(), model.generation_config
    generation.max_new_tokens = LONGEST_ANSWER
    generation.pad_token_id = tokens[PAD]
    generation.eos_token_id = tokens[EOS]
    write_weights(model, build_processor(), folder)


def follow(run: Run, settings: Settings, checkpoint: Path, console: Console) -> None:
    """Train to the end, with a line and a checkpoint now and then."""
    begin, losses = time.monotonic(), []
    for loss in train(run, settings):
        losses.append(loss)
        if run.step % settings.checkpoint_every == 0:
            save_checkpoint(run, checkpoint)
            minutes = (time.monotonic() - begin) / 60
            recent = sum(losses[-50:]) / len(losses[-50:])
            console.print(f"{run.stage} {run.step}: loss {recent:.4f}, {minutes:.1f} minutes")


def main(
    tower_steps: Annotated[int, typer.Option(help="Batches for the tower.")] = 500,
    steps: Annotated[int, typer.Option(help="Batches for the decoder.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and questions.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    checkpoint: Annotated[
        Path, typer.Option(help="State of the run; an existing one is resumed.")
    ] = CHECKPOINT,
    output: Annotated[Path, typer.Option(help="Folder that receives the weights.")] = WEIGHTS,
) -> None:
    """Train the subject, or go on where a stopped run left off, and write its weights."""
    console = Console()
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    usual = Settings()
    settings = Settings(
        tower=replace(usual.tower, steps=tower_steps),
        decoder=replace(usual.decoder, steps=steps),
        seed=seed,
        device=chosen,
    )
    run = resume_run(settings, checkpoint)
    size = sum(weight.numel() for weight in run.model.parameters())
    console.print(f"{size:,} parameters on {chosen}, from step {run.step} of the {run.stage}")
    follow(run, settings, checkpoint, console)
    export_weights(run.model, output)


if __name__ == "__main__":
    typer.run(main)
