"""Accuracy on every held-out problem in every order, always with the same random numbers."""

from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from benchmarks.credit.replay import label_batch
from benchmarks.credit.sampling import respond
from benchmarks.credit.task import LONGEST, Problem, problems, prompt_ids

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["SAMPLES", "count_solved", "held_out_prompts", "problem_numbers"]

SAMPLES = 4
"""Responses to each prompt."""

_SEED, _ROWS = 20_251_122, 256


@cache
def held_out_prompts() -> tuple[Problem, ...]:
    """Return the 295 held-out problems in all their orders, an order beside the others."""
    return tuple(
        Problem(numbers, problem.target)
        for problem in problems("test")
        for numbers in sorted(set(permutations(problem.numbers)))
    )


def problem_numbers() -> Int[Tensor, " prompt"]:
    """Return for each prompt the number of its problem, whatever the order of its numbers."""
    keys = [problem.key for problem in held_out_prompts()]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([numbers[key] for key in keys])


def count_solved(
    policy: "LlamaForCausalLM", prompts: tuple[Problem, ...] | None = None
) -> Int[Tensor, " prompt"]:
    """Return how many of `SAMPLES` responses to each prompt are right.

    The random numbers of a prompt's responses are the same for every policy.
    """
    chosen = held_out_prompts() if prompts is None else prompts
    generator = torch.Generator().manual_seed(_SEED)
    draws = torch.rand(len(chosen) * SAMPLES, LONGEST, generator=generator)
    rows = [problem for problem in chosen for _ in range(SAMPLES)]
    solved = []
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        ids = torch.tensor([prompt_ids(problem) for problem in part])
        solved.append(
            label_batch(part, respond(policy, ids, draws[start : start + len(part)])).solved
        )
    return torch.cat(solved).reshape(-1, SAMPLES).sum(-1)
