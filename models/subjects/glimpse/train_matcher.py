"""Train the matcher from scratch: `python -m attnscope.models.subjects.glimpse.train_matcher`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import Float, Int
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.optim import Optimizer

from attnscope.models.subjects.checkpoints import write_weights
from attnscope.models.subjects.glimpse.conversations import picture_values, stream_scenes
from attnscope.models.subjects.glimpse.matcher import (
    MATCHER_WEIGHTS,
    build_matcher,
    build_matcher_processor,
    matcher_config,
)
from attnscope.models.subjects.glimpse.patches import PatchReadOut, patch_labels
from attnscope.models.subjects.glimpse.scenes import OBJECTS, Scene, present_objects
from attnscope.models.subjects.glimpse.tasks import caption
from attnscope.models.subjects.optimizers import schedule_factor, set_rates

if TYPE_CHECKING:
    from transformers import BlipForImageTextRetrieval

TEMPERATURE = 0.07
PHRASES = ("a {}", "is there a {} ?")
GRADIENT_LIMIT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MatcherSettings:
    """Everything that a matcher's training depends on."""

    tower_steps: int = 400
    steps: int = 600
    tower_batch: int = 48
    batch: int = 32
    rate: float = 5e-3
    layers: int = 3
    hidden: int = 96
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Equally many texts to each scene, scene after scene, and the scenes that each is true of.

    Attributes:
        texts: What is said.
        owners: The index of the scene that each text was made for.
        fits: Whether each text is true of each scene of the batch.
    """

    texts: list[str]
    owners: Int[Tensor, " text"]
    fits: Float[Tensor, "text item"]

    @property
    def own(self) -> Int[Tensor, " text"]:
        """Return 1 where a text is true of its own scene and 0 where it is not."""
        return self.fits.gather(1, self.owners[:, None])[:, 0].long()


def pair_phrases(scenes: list[Scene], generator: np.random.Generator) -> Pairing:
    """Return phrases and questions on three objects that are there and three that are not."""
    held = [present_objects(scene) for scene in scenes]
    texts: list[str] = []
    fits: list[list[bool]] = []
    for here in held:
        names = [*_some(here, True, generator, 3), *_some(here, False, generator, 3)]
        for name in names:
            texts.append(PHRASES[generator.integers(len(PHRASES))].format(name))
            fits.append([name in other for other in held])
    owners = torch.arange(len(scenes)).repeat_interleave(6)
    return Pairing(texts=texts, owners=owners, fits=torch.tensor(fits).float())


def pair_captions(scenes: list[Scene], generator: np.random.Generator) -> Pairing:
    """Return each scene's caption, and the same with an absent object in a present one's stead."""
    texts: list[str] = []
    fits: list[list[bool]] = []
    for index, scene in enumerate(scenes):
        here, text = present_objects(scene), caption(scene)
        (there,), (absent,) = (_some(here, held, generator, 1) for held in (True, False))
        texts += [text, text.replace(there, absent)]
        fits += [[place == index for place in range(len(scenes))], [False] * len(scenes)]
    owners = torch.arange(len(scenes)).repeat_interleave(2)
    return Pairing(texts=texts, owners=owners, fits=torch.tensor(fits).float())


def _some(
    here: frozenset[str], held: bool, generator: np.random.Generator, count: int
) -> list[str]:
    names = [name for name in OBJECTS if (name in here) == held]
    return [str(name) for name in generator.choice(names, count, replace=False)]


def matching_loss(
    model: BlipForImageTextRetrieval,
    processor: Any,
    seen: Float[Tensor, "item patch width"],
    texts: Pairing,
) -> Float[Tensor, ""]:
    """Return the losses of the match head and of the cosines, added.

    The match head (ITM) tells whether a text is true of its own scene. The cosines (ITC) of a
    text with the batch's pictures, over a temperature, are a softmax that should spread over
    the scenes that it is true of; a text that is true of none has no part in it.
    """
    words = processor.tokenizer(texts.texts, padding=True, return_tensors="pt")
    ids, mask = words["input_ids"], words["attention_mask"]
    joint = model.text_encoder(
        input_ids=ids,
        attention_mask=mask,
        encoder_hidden_states=seen[texts.owners],
        encoder_attention_mask=torch.ones(len(ids), seen.shape[1], dtype=torch.long),
    ).last_hidden_state
    alone = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    pictures = normalize(model.vision_proj(seen[:, 0]), dim=-1)
    said = normalize(model.text_proj(alone[:, 0]), dim=-1)
    true = texts.fits.any(1)
    wanted = texts.fits[true] / texts.fits[true].sum(1, keepdim=True)
    cosine = cross_entropy(said[true] @ pictures.T / TEMPERATURE, wanted)
    return cross_entropy(model.itm_head(joint[:, 0]), texts.own) + cosine


def matcher_optimizers(parts: torch.nn.Module, rate: float) -> list[Optimizer]:
    """Return Muon for the matrices of both encoders' layers and AdamW for the rest."""
    weights = dict(parts.named_parameters())
    inner = {name for name, w in weights.items() if w.ndim == 2 and ".encoder." in name}
    others = [weight for name, weight in weights.items() if name not in inner]
    return [
        torch.optim.Muon(
            [weights[name] for name in sorted(inner)],
            lr=rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train_matcher(model: BlipForImageTextRetrieval, settings: MatcherSettings) -> Iterator[float]:
    """Train a matcher in place and yield the loss of each step.

    The picture encoder learns first, alone, what lies on each patch; then all learns to match.
    """
    processor = build_matcher_processor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        read_out = PatchReadOut(settings.hidden)
    tower = torch.nn.ModuleList([model.vision_model, read_out])

    def patch_loss(scenes: list[Scene], step: int) -> Float[Tensor, ""]:
        return read_out(_seen(model, scenes)[:, 1:], patch_labels(scenes))

    def text_loss(scenes: list[Scene], step: int) -> Float[Tensor, ""]:
        generator = np.random.default_rng([settings.seed, step])
        seen = _seen(model, scenes)
        return matching_loss(
            model, processor, seen, pair_phrases(scenes, generator)
        ) + matching_loss(model, processor, seen, pair_captions(scenes, generator))

    model.train()
    scenes = stream_scenes(settings.seed, settings.tower_batch, 3_000_000)
    yield from _descend(tower, patch_loss, scenes, settings.tower_steps, settings.rate)
    scenes = stream_scenes(settings.seed, settings.batch, 4_000_000)
    yield from _descend(model, text_loss, scenes, settings.steps, settings.rate)


def _seen(
    model: BlipForImageTextRetrieval, scenes: list[Scene]
) -> Float[Tensor, "item patch width"]:
    return model.vision_model(pixel_values=picture_values(scenes)).last_hidden_state


def _descend(
    parts: torch.nn.Module,
    loss_of: Callable[[list[Scene], int], Tensor],
    stream: Iterator[list[Scene]],
    steps: int,
    rate: float,
) -> Iterator[float]:
    optimizers = matcher_optimizers(parts, rate)
    for step, scenes in zip(range(steps), stream, strict=False):
        set_rates(optimizers, [rate] * len(optimizers), schedule_factor(step, steps))
        loss = loss_of(scenes, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), GRADIENT_LIMIT)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield loss.item()


def main(
    steps: Annotated[int, typer.Option(help="Batches to match on.")] = MatcherSettings().steps,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and texts.")] = 0,
    output: Annotated[
        Path, typer.Option(help="Folder that receives the weights.")
    ] = MATCHER_WEIGHTS,
) -> None:
    """Train the matcher and write its weights."""
    console = Console()
    settings = MatcherSettings(steps=steps, seed=seed)
    model = build_matcher(
        matcher_config(layers=settings.layers, hidden=settings.hidden), seed=settings.seed
    )
    size = sum(weight.numel() for weight in model.parameters())
    console.print(f"{size:,} parameters")
    begin, losses = time.monotonic(), []
    for step, loss in enumerate(train_matcher(model, settings), start=1):
        losses.append(loss)
        if step % 50 == 0:
            minutes = (time.monotonic() - begin) / 60
            console.print(f"step {step}: loss {sum(losses[-50:]) / 50:.4f}, {minutes:.1f} minutes")
    write_weights(model, build_matcher_processor(), output)


if __name__ == "__main__":
    typer.run(main)
