"""Seeded problems in two splits that share no problem, whatever the order of its numbers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import islice

from attnscope.models.subjects.countdown.task import (
    LARGEST_NUMBER,
    LARGEST_VALUE,
    SMALLEST_TARGET,
    Problem,
    reachable,
)

SPLITS = ("test", "train")
TEST_SHARE = 0.1
SIZES = (3, 4)
PATIENCE = 2000


def split_of(problem: Problem) -> str:
    """Return the split of `problem`, decided by a hash that ignores the order of its numbers.

    >>> first, second = ((3, 7, 8), (8, 3, 7))
    >>> split_of(Problem(numbers=first, target=29)) == split_of(Problem(numbers=second, target=29))
    True
    """
    key = f"{sorted(problem.numbers)} {problem.target}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") < TEST_SHARE * 2**64 else "train"


def sample_problems(
    count: int, seed: int, *, numbers: int = 3, split: str = "test"
) -> list[Problem]:
    """Return `count` solvable problems with that many `numbers`, the same for the same arguments.

    The numbers are drawn evenly from 1 to `LARGEST_NUMBER`, the target evenly from what they can
    reach. The test problems are all different; the training problems may repeat.

    Raises:
        ValueError: if the split or the size does not exist, or fewer different problems do.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {list(SPLITS)}")
    if numbers not in SIZES:
        raise ValueError(
            f"no problems with {numbers} numbers; there are problems with {list(SIZES)}"
        )
    generator = random.Random(seed)  # noqa: S311 - reproducible, not secret
    stream = stream_problems(generator, numbers=numbers, split=split)
    return list(islice(_distinct(stream) if split == "test" else stream, count))


def stream_problems(generator: random.Random, *, numbers: int, split: str) -> Iterator[Problem]:
    """Yield solvable problems of one split without end."""
    while True:
        drawn = tuple(generator.randint(1, LARGEST_NUMBER) for _ in range(numbers))
        targets = [
            value for value in sorted(reachable(drawn)) if SMALLEST_TARGET <= value <= LARGEST_VALUE
        ]
        if not targets:
            continue
        problem = Problem(numbers=drawn, target=generator.choice(targets))
        if split_of(problem) == split:
            yield problem


def _distinct(problems: Iterator[Problem]) -> Iterator[Problem]:
    """Yield the problems that differ from all earlier ones, up to the order of the numbers."""
    seen = set()
    repeats = 0
    for problem in problems:
        key = (tuple(sorted(problem.numbers)), problem.target)
        repeats = repeats + 1 if key in seen else 0
        if repeats == 0:
            seen.add(key)
            yield problem
        elif repeats > PATIENCE:
            raise ValueError(f"too many different problems asked for; found only {len(seen)}")
