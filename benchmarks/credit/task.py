"""The task: reach a target from three numbers, in a written search of attempts that may fail.

A prompt is `<bos> a b c : target`. A response is a row of attempts; each starts again from the
three numbers, writes two steps `a op b = v | what is left ;` and closes with `no ;` (another
attempt follows), `no <eos>` (it gives up) or `yes <eos>`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, permutations

__all__ = [
    "ATTEMPT",
    "BOS",
    "EOS",
    "LONGEST",
    "OPERATORS",
    "PAD",
    "PROMPT",
    "STEP",
    "TOKENS",
    "VOCABULARY",
    "Problem",
    "State",
    "calculate",
    "generator_for",
    "problems",
    "prompt_ids",
    "spelled",
    "steps_from",
    "stream_problems",
    "write_response",
]

LARGEST_VALUE, SMALLEST_TARGET = 40, 10
OPERATORS = ("+", "-", "*", "/")
TOKENS = (
    *map(str, range(LARGEST_VALUE + 1)),
    *OPERATORS,
    *("=", "|", ";", ":", "yes", "no", "<bos>", "<eos>", "<pad>"),
)
VOCABULARY = {token: number for number, token in enumerate(TOKENS)}
BOS, EOS, PAD = (VOCABULARY[token] for token in ("<bos>", "<eos>", "<pad>"))

PROMPT = 6
"""Tokens of every prompt."""
STEP = 9
"""Tokens of an attempt's first step; the second has one less."""
ATTEMPT = 19
"""Tokens of an attempt with its closing."""
LONGEST = 4 * ATTEMPT
"""Tokens of the longest response: four attempts."""

_TEST_SHARE = 0.3
_SOLVED_SHARE = 0.3
_MOST_FAILURES = 3

State = tuple[int, ...]
Operation = tuple[int, str, int]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Three numbers, in the order of the prompt, and the target."""

    numbers: State
    target: int

    @property
    def key(self) -> tuple[State, int]:
        """Return what it has in common with the same problem in another order."""
        return tuple(sorted(self.numbers)), self.target


def calculate(left: int, operator: str, right: int) -> int | None:
    """Return the result of an operation, None unless it is a whole number from 0 to 40.

    Example:
        >>> calculate(8, "/", 4), calculate(8, "/", 3), calculate(3, "-", 8), calculate(9, "*", 9)
        (2, None, None, None)
    """
    if operator == "/":
        return left // right if right and left % right == 0 else None
    result = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return result if 0 <= result <= LARGEST_VALUE else None


@cache
def steps_from(state: State) -> tuple[tuple[Operation, State], ...]:
    """Return every operation on two numbers of a state, with the state that it leaves.

    Example:
        >>> [(operation, after) for operation, after in steps_from((2, 5)) if operation[1] == "-"]
        [((5, '-', 2), (3,))]
    """
    found = {}
    for i, j in permutations(range(len(state)), 2):
        rest = tuple(state[k] for k in range(len(state)) if k not in (i, j))
        for operator in OPERATORS:
            result = calculate(state[i], operator, state[j])
            if result is not None:
                found[state[i], operator, state[j]] = (result, *rest)
    return tuple(found.items())


def problems(split: str) -> tuple[Problem, ...]:
    """Return every solvable problem of a split with its numbers sorted; splits share none.

    Args:
        split: "train" or "test", decided by a hash that ignores the order of the numbers.
    """
    return tuple(problem for problem in _all_problems() if _split_of(problem) == split)


@cache
def _all_problems() -> tuple[Problem, ...]:
    found = []
    for numbers in combinations_with_replacement(range(1, 10), 3):
        made = {final[0] for _, pair in steps_from(numbers) for _, final in steps_from(pair)}
        found += [
            Problem(numbers, target)
            for target in sorted(made)
            if target >= SMALLEST_TARGET and target not in numbers
        ]
    return tuple(found)


def _split_of(problem: Problem) -> str:
    digest = hashlib.blake2b(repr(problem.key).encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") < _TEST_SHARE * 2**64 else "train"


def generator_for(*names: object) -> random.Random:
    """Return random numbers that depend on some names alone."""
    return random.Random(" ".join(map(str, names)))  # noqa: S311 - reproducible, not secret


def stream_problems(generator: random.Random, split: str) -> Iterator[Problem]:
    """Yield problems of a split without end, their numbers in random order."""
    found = problems(split)
    while True:
        problem = generator.choice(found)
        yield Problem(tuple(generator.sample(problem.numbers, 3)), problem.target)


def prompt_ids(problem: Problem) -> list[int]:
    """Return the tokens of a prompt; a number's token is the number.

    Example:
        >>> spelled(prompt_ids(Problem((3, 7, 8), 29)))
        '<bos> 3 7 8 : 29'
    """
    return [BOS, *problem.numbers, VOCABULARY[":"], problem.target]


def spelled(ids: list[int]) -> str:
    """Return tokens as words."""
    return " ".join(TOKENS[number] for number in ids)


def write_response(problem: Problem, generator: random.Random) -> list[int]:
    """Return the tokens of a search: up to three random attempts, then a solution or one more.

    The last attempt is a solution with probability 0.3, else random too; a search whose last
    attempt fails gives up. So whoever imitates such searches solves about 0.3 of the problems, by
    choices that are mostly random.
    """
    words: list[str] = []
    for _ in range(generator.randint(0, _MOST_FAILURES)):
        if _write_attempt(problem, words, generator.choice(_attempts(problem.numbers))):
            return [VOCABULARY[word] for word in (*words, "yes", "<eos>")]
        words += ["no", ";"]
    solve = generator.random() < _SOLVED_SHARE
    last = [a for a in _attempts(problem.numbers) if not solve or a[1][1] == (problem.target,)]
    solved = _write_attempt(problem, words, generator.choice(last))
    return [VOCABULARY[word] for word in (*words, "yes" if solved else "no", "<eos>")]


Attempt = tuple[tuple[Operation, State], tuple[Operation, State]]


@cache
def _attempts(numbers: State) -> tuple[Attempt, ...]:
    """Return every pair of steps."""
    return tuple(
        (first, second) for first in steps_from(numbers) for second in steps_from(first[1])
    )


def _write_attempt(problem: Problem, words: list[str], attempt: Attempt) -> bool:
    """Append the words of two steps, and return whether they reach the target."""
    for (left, operator, right), after in attempt:
        words += [str(left), operator, str(right), "=", str(after[0]), "|", *map(str, after), ";"]
    return attempt[1][1] == (problem.target,)
