"""Accuracy on held-out problems: the command and the functions behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnscope.models.subjects.countdown.decoder import WEIGHTS, load_subject
from attnscope.models.subjects.countdown.sampling import SIZES, sample_problems
from attnscope.models.subjects.countdown.task import Problem, calculate, verify
from attnscope.models.subjects.countdown.tokenizer import prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

LONGEST_RESPONSE = 512


def respond(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    *,
    batch_size: int = 128,
    longest: int = LONGEST_RESPONSE,
    temperature: float = 0.0,
) -> list[str]:
    """Return the model's response to each problem; at temperature 0 the likeliest words."""
    sampling = (
        {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    )
    responses: list[str] = []
    for start in range(0, len(problems), batch_size):
        prompts = [prompt_text(problem) for problem in problems[start : start + batch_size]]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
        output = model.generate(  # pyright: ignore[reportAttributeAccessIssue] - mixin's protocol
            **inputs, **sampling, max_new_tokens=longest, use_cache=True
        )
        responses += tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
    return responses


def accuracy(problems: Sequence[Problem], responses: Sequence[str]) -> float:
    """Return the share of problems whose response passes the verifier."""
    passed = [
        verify(problem, response) for problem, response in zip(problems, responses, strict=True)
    ]
    return sum(passed) / len(passed)


def wrong_operations(responses: Sequence[str]) -> tuple[int, int]:
    """Return how many written operations are wrong, and how many there are.

    >>> wrong_operations(["try 3 + 4 = 7 . 7 * 2 = 15 too high"])
    (1, 2)
    """
    written = [match.groups() for response in responses for match in _OPERATION.finditer(response)]
    wrong = sum(calculate(int(a), sign, int(b)) != int(c) for a, sign, b, c in written)
    return wrong, len(written)


_OPERATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def main(
    weights: Annotated[Path, typer.Option(help="Folder of the weights to judge.")] = WEIGHTS,
    count: Annotated[int, typer.Option(help="Held-out problems of each size.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed that draws the problems.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest words.")] = 0.0,
) -> None:
    """Print the share of held-out problems solved, for three and for four numbers."""
    import torch

    torch.manual_seed(seed)
    model, tokenizer = load_subject(weights)
    for numbers in SIZES:
        problems = sample_problems(count, seed, numbers=numbers, split="test")
        responses = respond(model, tokenizer, problems, temperature=temperature)
        unfinished = sum("answer" not in response for response in responses)
        wrong, written = wrong_operations(responses)
        words = sum(len(response.split()) for response in responses) / count
        share = accuracy(problems, responses)
        typer.echo(
            f"{numbers} numbers: {share:.1%} of {count} held-out problems solved, "
            f"{words:.0f} tokens on average, {unfinished} without an answer, "
            f"{wrong} of {written} operations wrong"
        )


if __name__ == "__main__":
    typer.run(main)
