"""Train the subject from scratch: `python -m attnscope.models.subjects.countdown.train`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from jaxtyping import Float
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from torch.optim import Optimizer

from attnscope.models.subjects.checkpoints import write_state, write_weights
from attnscope.models.subjects.countdown.batches import POOL_SIZE, Batch, stream_batches
from attnscope.models.subjects.countdown.decoder import WEIGHTS, build_subject, subject_config
from attnscope.models.subjects.countdown.evaluate import (
    LONGEST_RESPONSE,
    accuracy,
    respond,
)
from attnscope.models.subjects.countdown.sampling import SIZES, sample_problems
from attnscope.models.subjects.countdown.tokenizer import build_tokenizer
from attnscope.models.subjects.optimizers import (
    build_optimizers,
    schedule_factor,
    set_rates,
)

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

VALIDATION_BATCHES = 6
GRADIENT_LIMIT = 1.0
EVALUATION_SEED = 20_000
CHECKPOINT = Path("countdown_checkpoint.pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a run depends on."""

    steps: int = 1400
    tokens_per_batch: int = 6144
    pool_size: int = POOL_SIZE
    matrix_rate: float = 6e-3
    rate: float = 6e-3
    seed: int = 0
    layers: int = 6
    hidden: int = 192
    heads: int = 6
    device: str = "cpu"
    half_precision: bool = True
    compiled: bool = False
    evaluate_every: int = 300
    evaluated_problems: int = 64
    checkpoint_every: int = 100


@dataclass(slots=True, kw_only=True)
class Run:
    """What changes while training goes on; `pool` and `index` say where the next batch begins."""

    model: Qwen3ForCausalLM
    optimizers: list[Optimizer]
    step: int = 0
    tokens: int = 0
    pool: int = 0
    index: int = 0


def start_run(settings: Settings) -> Run:
    """Return a run at step zero."""
    config = subject_config(layers=settings.layers, hidden=settings.hidden, heads=settings.heads)
    model = build_subject(config, seed=settings.seed)
    model.to(settings.device)  # pyright: ignore[reportArgumentType] - decorated upstream
    return Run(
        model=model,
        optimizers=build_optimizers(model, matrix_rate=settings.matrix_rate, rate=settings.rate),
    )


def save_checkpoint(run: Run, path: Path) -> None:
    """Write the run to `path` whole or not at all."""
    state = {
        "model": run.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "position": {"step": run.step, "tokens": run.tokens, "pool": run.pool, "index": run.index},
    }
    write_state(state, path)


def resume_run(settings: Settings, path: Path) -> Run:
    """Return the run that `path` holds, or a run at step zero if there is no such file."""
    run = start_run(settings)
    if not path.exists():
        return run
    state = torch.load(path, map_location=settings.device, weights_only=True)
    run.model.load_state_dict(state["model"])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for name, value in state["position"].items():
        setattr(run, name, value)
    return run


def response_loss(model: Qwen3ForCausalLM, batch: Batch, settings: Settings) -> Float[Tensor, ""]:
    """Return the mean cross entropy of the response tokens, each predicted from its past."""
    tokens, labels = batch.tokens.to(settings.device), batch.labels.to(settings.device)
    with _precision(settings):
        return model(input_ids=tokens, labels=labels, use_cache=False).loss


def _precision(settings: Settings) -> AbstractContextManager[object]:
    return torch.autocast(
        settings.device.split(":")[0], torch.bfloat16, enabled=settings.half_precision
    )


def train(run: Run, settings: Settings) -> Iterator[float]:
    """Take the steps that are left, changing `run` in place, and yield the loss of each."""
    stream = stream_batches(
        settings.seed,
        split="train",
        tokens_per_batch=settings.tokens_per_batch,
        pool_size=settings.pool_size,
        pool=run.pool,
        index=run.index,
    )
    loss_function = (
        torch.compile(response_loss, dynamic=True) if settings.compiled else response_loss
    )
    for batch in islice(stream, settings.steps - run.step):
        run.model.train()
        factor = schedule_factor(run.step, settings.steps)
        set_rates(run.optimizers, [settings.matrix_rate, settings.rate], factor)
        loss = loss_function(run.model, batch, settings)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), GRADIENT_LIMIT)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        run.step += 1
        run.tokens += batch.tokens.numel()
        run.pool, run.index = batch.pool, batch.index
        yield loss.item()


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, settings: Settings) -> float:
    """Return the loss on worked solutions of held-out problems, the same ones at every call."""
    model.eval()
    stream = stream_batches(
        EVALUATION_SEED,
        split="test",
        tokens_per_batch=settings.tokens_per_batch,
        pool_size=settings.pool_size,
    )
    losses = [
        response_loss(model, batch, settings).item() for batch in islice(stream, VALIDATION_BATCHES)
    ]
    return sum(losses) / len(losses)


def greedy_accuracies(model: Qwen3ForCausalLM, count: int) -> list[float]:
    """Return the share of held-out problems solved greedily, for each size of problem."""
    model.eval()
    tokenizer = build_tokenizer()
    shares = []
    for numbers in SIZES:
        problems = sample_problems(count, EVALUATION_SEED, numbers=numbers, split="test")
        shares.append(accuracy(problems, respond(model, tokenizer, problems)))
    return shares


def export_weights(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Write model and tokenizer to `folder`, whole or not at all."""
    model.generation_config.max_new_tokens = LONGEST_RESPONSE
    model.generation_config.pad_token_id = model.config.pad_token_id
    write_weights(model, build_tokenizer(), folder)


def _describe(run: Run, settings: Settings) -> str:
    loss = held_out_loss(run.model, settings)
    shares = greedy_accuracies(run.model, settings.evaluated_problems)
    solved = ", ".join(
        f"{share:.1%} of {size}-number" for size, share in zip(SIZES, shares, strict=True)
    )
    return f"step {run.step}: held-out loss {loss:.4f}; solved greedily: {solved} problems"


def _follow(run: Run, settings: Settings, checkpoint: Path, console: Console) -> None:
    """Train to the end, showing progress on a terminal and a line now and then elsewhere."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    begin, tokens_before = time.monotonic(), run.tokens
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=settings.steps, completed=run.step)
        for loss in train(run, settings):
            rate = (run.tokens - tokens_before) / (time.monotonic() - begin)
            text = f"step {run.step} loss {loss:.3f} {rate:,.0f} tokens/s"
            progress.update(task, completed=run.step, description=text)
            if not console.is_terminal and run.step % 50 == 0:
                console.print(text)
            if run.step % settings.checkpoint_every == 0:
                save_checkpoint(run, checkpoint)
            if run.step % settings.evaluate_every == 0 and run.step < settings.steps:
                console.print(_describe(run, settings))
    save_checkpoint(run, checkpoint)


def main(
    steps: Annotated[
        int, typer.Option(help="Optimizer steps in all; a resumed run may change it.")
    ] = 1400,
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the problems.")] = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto for the faster one there is.")
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option(help="Compile the loss (a minute to start, then faster).")
    ] = False,
    checkpoint: Annotated[
        Path, typer.Option(help="State of the run; an existing one is resumed.")
    ] = CHECKPOINT,
    output: Annotated[Path, typer.Option(help="Folder that receives the weights.")] = WEIGHTS,
) -> None:
    """Train the subject, or go on where a stopped run left off, and write its weights."""
    console = Console()
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    settings = Settings(steps=steps, seed=seed, device=chosen, compiled=compiled)
    run = resume_run(settings, checkpoint)
    size = sum(weight.numel() for weight in run.model.parameters())
    console.print(f"{size:,} parameters on {chosen}, from step {run.step} to {steps}")
    begin = time.monotonic()
    _follow(run, settings, checkpoint, console)
    export_weights(run.model, output)
    minutes = (time.monotonic() - begin) / 60
    console.print(f"{_describe(run, settings)}; {run.tokens:,} tokens, {minutes:.1f} minutes")


if __name__ == "__main__":
    typer.run(main)
