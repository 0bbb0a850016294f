"""Training batches: fresh worked solutions without end, grouped by length, resumable."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Int
from torch import Tensor

from attnscope.models.subjects.countdown.sampling import stream_problems
from attnscope.models.subjects.countdown.solutions import THOROUGHNESS, write_solution
from attnscope.models.subjects.countdown.tokenizer import (
    EOS,
    PAD,
    prompt_text,
    prompt_text_with_system,
    vocabulary,
)

IGNORED = -100
POOL_SIZE = 2048
SYSTEM_SHARE = 0.2
THREE_NUMBER_SHARE = 0.6
LONGEST = 448
FIRST_THOROUGH_POOL = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padded token ids, labels that count the response alone, and where the next batch begins."""

    tokens: Int[Tensor, "sequence token"]
    labels: Int[Tensor, "sequence token"]
    pool: int
    index: int


Example = tuple[list[int], int]


def stream_batches(
    seed: int,
    *,
    split: str,
    tokens_per_batch: int,
    pool_size: int = POOL_SIZE,
    pool: int = 0,
    index: int = 0,
) -> Iterator[Batch]:
    """Yield batches without end, beginning with batch `index` of pool `pool`.

    A pool is `pool_size` examples that depend on the seed and on the pool's number alone. Sorting
    it by length and cutting it into batches of about `tokens_per_batch` tokens leaves little
    padding; the batches come in random order. Hopeless branches are given up early in the first
    pools, which keeps them short, and half of them are searched to the end from pool
    `FIRST_THOROUGH_POOL` on.
    """
    while True:
        generator = random.Random(f"{seed} {split} {pool}")  # noqa: S311 - reproducible, not secret
        thoroughness = THOROUGHNESS if pool >= FIRST_THOROUGH_POOL else 0.0
        examples = islice(_stream_examples(generator, split, thoroughness), pool_size)
        batches = _cut(list(examples), tokens_per_batch)
        generator.shuffle(batches)
        for position in range(index, len(batches)):
            is_last = position + 1 == len(batches)
            following = (pool + 1, 0) if is_last else (pool, position + 1)
            yield _pad(batches[position], *following)
        pool, index = pool + 1, 0


def _cut(examples: list[Example], tokens_per_batch: int) -> list[list[Example]]:
    """Return the examples in batches of like length, each within `tokens_per_batch` if it can."""
    batches: list[list[Example]] = [[]]
    for example in sorted(examples, key=lambda example: len(example[0])):
        if batches[-1] and (len(batches[-1]) + 1) * len(example[0]) > tokens_per_batch:
            batches.append([])
        batches[-1].append(example)
    return batches


def _stream_examples(
    generator: random.Random, split: str, thoroughness: float
) -> Iterator[Example]:
    """Yield token ids with the length of their prompt; the few that are too long are left out."""
    ids = vocabulary()
    streams = {
        numbers: stream_problems(generator, numbers=numbers, split=split) for numbers in (3, 4)
    }
    while True:
        problem = next(streams[3 if generator.random() < THREE_NUMBER_SHARE else 4])
        render = prompt_text_with_system if generator.random() < SYSTEM_SHARE else prompt_text
        prompt = render(problem).split()
        words = [
            *prompt,
            *write_solution(problem, generator, thoroughness=thoroughness).split(),
            EOS,
        ]
        if len(words) <= LONGEST:
            yield [ids[word] for word in words], len(prompt)


def _pad(examples: list[Example], pool: int, index: int) -> Batch:
    """Return one batch, padded on the right, where the causal mask keeps padding out of sight."""
    width = max(len(ids) for ids, _ in examples)
    tokens = torch.full((len(examples), width), vocabulary()[PAD])
    labels = torch.full((len(examples), width), IGNORED)
    for row, (ids, prompt_length) in enumerate(examples):
        tokens[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt_length : len(ids)] = tokens[row, prompt_length : len(ids)]
    return Batch(tokens=tokens, labels=labels, pool=pool, index=index)
