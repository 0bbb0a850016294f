"""Train the classifiers from scratch: `python -m attnscope.models.subjects.digits.train`."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from attnscope.models.subjects.digits.checkpoint import save_classifier
from attnscope.models.subjects.digits.classifier import DigitClassifier
from attnscope.models.subjects.digits.images import Pictures, epochs, heldout
from attnscope.models.subjects.digits.mechanisms import MECHANISMS

__all__ = ["Settings", "accuracy", "main", "train"]

console = Console()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a run depends on."""

    steps: int = 1000
    batch: int = 64
    rate: float = 2e-3
    warmup: int = 100
    decay: float = 0.05
    seed: int = 0


def train(mechanism: str, settings: Settings) -> DigitClassifier:
    """Return a classifier trained with one mechanism; every mechanism sees the same pictures."""
    torch.manual_seed(settings.seed)
    model = DigitClassifier(mechanism).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, weight_decay=settings.decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.rate,
        total_steps=settings.steps,
        pct_start=settings.warmup / settings.steps,
    )
    pictures = epochs(settings.batch, settings.seed)
    for _ in range(settings.steps):
        batch = next(pictures)
        loss = torch.nn.functional.cross_entropy(model(batch.pixels), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: DigitClassifier, pictures: Pictures) -> float:
    """Return the share of pictures that are read right."""
    chosen = [model(part).argmax(-1) for part in pictures.pixels.split(60)]
    return (torch.cat(chosen) == pictures.labels).float().mean().item()


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write weights and results.")],
    mechanisms: Annotated[list[str] | None, typer.Option("--mechanism")] = None,
    steps: Annotated[int, typer.Option(help="Batches to train on.")] = Settings().steps,
    seed: Annotated[int, typer.Option(help="Of weights, order and places.")] = 0,
) -> None:
    """Train a classifier for each mechanism (all by default) and keep it with its accuracy."""
    settings, pictures = Settings(steps=steps, seed=seed), heldout()
    for mechanism in mechanisms or MECHANISMS:
        start = time.perf_counter()
        model = train(mechanism, settings)
        facts = {
            "mechanism": mechanism,
            "accuracy": accuracy(model, pictures),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": round(time.perf_counter() - start, 1),
            "settings": asdict(settings),
        }
        save_classifier(model, facts, folder)
        console.print(facts)


if __name__ == "__main__":
    typer.run(main)
