"""Train the supervised policies that reinforcement learning starts from.

`python -m benchmarks.credit.supervise SEED` writes `checkpoints/supervised-SEED.safetensors`.
"""

import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from benchmarks.credit.policy import CHECKPOINTS, build_policy, save_policy
from benchmarks.credit.task import (
    PAD,
    PROMPT,
    prompt_ids,
    stream_problems,
    write_response,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["batches", "response_loss", "train"]

STEPS, BATCH, CHUNKS = 1700, 96, 3
_WARM_UP, _DECAY = 50, 0.6
_RATE = 6e-3


def batches(seed: int, size: int = BATCH) -> Iterator[list[Int[Tensor, "sequence token"]]]:
    """Yield training batches without end: prompts with responses, in chunks of like length.

    Padding is saved inside of a batch alone. Batches of one length would teach in turn to end and
    to go on.
    """
    generator = random.Random(seed)  # noqa: S311 - reproducible, not secret
    stream = stream_problems(generator, "train")
    while True:
        problems = islice(stream, size)
        rows = [prompt_ids(one) + write_response(one, generator) for one in problems]
        rows.sort(key=len)
        cut = size // CHUNKS
        yield [_padded(rows[start : start + cut]) for start in range(0, size, cut)]


def _padded(rows: list[list[int]]) -> Int[Tensor, "sequence token"]:
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def response_loss(policy: nn.Module, ids: Int[Tensor, "sequence token"]) -> Float[Tensor, ""]:
    """Return the summed cross entropy of the response tokens, in nats."""
    logits = policy(input_ids=ids, use_cache=False).logits[:, PROMPT - 1 : -1]
    labels = ids[:, PROMPT:].flatten()
    return cross_entropy(logits.flatten(0, 1), labels, ignore_index=PAD, reduction="sum")


def train(seed: int, steps: int = STEPS) -> Iterator[tuple[int, float, "LlamaForCausalLM"]]:
    """Train a policy and yield step, loss per token and the policy, which changes in place.

    Muon for the layers' matrices, AdamW for embeddings and norms; the rate rises for 50 steps and
    falls to zero over the last 60 %.
    """
    policy = build_policy(seed)
    optimizers = _optimizers(policy)
    for step, chunks in enumerate(islice(batches(seed), steps)):
        share = min(1.0, (step + 1) / _WARM_UP, (steps - step) / (steps * _DECAY))
        tokens = sum(int((ids[:, PROMPT:] != PAD).sum()) for ids in chunks)
        total = 0.0
        for ids in chunks:
            loss = response_loss(policy, ids) / tokens
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _RATE * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield step + 1, total, policy


def _optimizers(policy: nn.Module) -> list[Optimizer]:
    matrices = [p for name, p in policy.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in policy.parameters() if id(weight) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def main(
    seed: Annotated[int, typer.Argument(help="Seed of the first weights and of the data.")],
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = STEPS,
    folder: Annotated[Path, typer.Option(help="Where the weights go.")] = CHECKPOINTS,
) -> None:
    """Train one policy on one thread, so that two can be trained side by side."""
    torch.set_num_threads(1)
    start, recent = time.monotonic(), 0.0
    for step, loss, policy in train(seed, steps):
        recent += loss
        if step % 100 == 0:
            print(f"step {step}: loss {recent / 100:.4f}, {time.monotonic() - start:.0f} s")
            recent = 0.0
        if step % 200 == 0 or step == steps:
            save_policy(policy, folder / f"supervised-{seed}.safetensors")


if __name__ == "__main__":
    typer.run(main)
