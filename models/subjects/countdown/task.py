"""The countdown task: reach a target by combining all the given numbers once with + - * /."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

LARGEST_NUMBER = 20
LARGEST_VALUE = 100
SMALLEST_TARGET = 10
OPERATORS = ("+", "-", "*", "/")
ANSWER_WORD = "answer"
_NUMBER = "(0|[1-9][0-9]{0,8})"
_STEP_PATTERN = re.compile(rf"{_NUMBER} ([-+*/]) {_NUMBER} = {_NUMBER}")

State = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One task: combine every one of `numbers` exactly once into `target`.

    >>> str(Problem(numbers=(3, 7, 8), target=29))
    'numbers 3 7 8 target 29'
    """

    numbers: State
    target: int

    def __str__(self) -> str:
        """Return the words of the prompt."""
        return f"numbers {' '.join(map(str, self.numbers))} target {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation on two numbers, written with the larger number on the left.

    >>> str(Step(left=8, operator="*", right=3, result=24))
    '8 * 3 = 24'
    """

    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        """Return the five words of the operation."""
        return f"{self.left} {self.operator} {self.right} = {self.result}"


def calculate(left: int, operator: str, right: int) -> int | None:
    """Return the exact whole result of one operation, or None where there is none.

    There is none for a difference below zero, a division with a remainder or by zero, or an
    unknown operator.

    >>> calculate(24, "/", 8), calculate(24, "/", 7), calculate(3, "-", 8)
    (3, None, None)
    """
    if operator == "+":
        return left + right
    if operator == "*":
        return left * right
    if operator == "-":
        return left - right if left >= right else None
    if operator == "/" and right != 0 and left % right == 0:
        return left // right
    return None


def apply_step(state: State, step: Step) -> State | None:
    """Return `state` with the result in place of the operands, or None if an operand is missing.

    >>> apply_step((3, 7, 8), Step(left=7, operator="*", right=3, result=21))
    (8, 21)
    """
    remaining = list(state)
    for operand in (step.left, step.right):
        if operand not in remaining:
            return None
        remaining.remove(operand)
    return (*remaining, step.result)


def steps_from(state: State) -> Iterator[Step]:
    """Yield every different operation that the game allows on `state`.

    Results are whole numbers from 1 to `LARGEST_VALUE`. Division by one is left out because it
    equals multiplication by one.
    """
    seen = set()
    for pair in combinations(state, 2):
        right, left = sorted(pair)
        if (left, right) in seen:
            continue
        seen.add((left, right))
        for operator in OPERATORS:
            result = calculate(left, operator, right)
            useful = not (operator == "/" and right == 1)
            if useful and result is not None and 1 <= result <= LARGEST_VALUE:
                yield Step(left=left, operator=operator, right=right, result=result)


def reachable(numbers: State) -> frozenset[int]:
    """Return every value that some order of operations makes from all of `numbers`.

    >>> sorted(reachable((2, 3)))
    [1, 5, 6]
    """
    return _reachable(tuple(sorted(numbers)))


@lru_cache(maxsize=200_000)
def _reachable(numbers: State) -> frozenset[int]:
    if len(numbers) == 1:
        return frozenset(numbers)
    values: set[int] = set()
    for step in steps_from(numbers):
        after = apply_step(numbers, step)
        if after is not None:
            values |= reachable(after)
    return frozenset(values)


def solve(problem: Problem) -> tuple[Step, ...] | None:
    """Return operations that reach the target, or None if there are none.

    >>> [str(step) for step in solve(Problem(numbers=(3, 7, 8), target=29))]
    ['7 * 3 = 21', '21 + 8 = 29']
    """
    if len(problem.numbers) == 1:
        return () if problem.numbers[0] == problem.target else None
    for step in steps_from(problem.numbers):
        after = apply_step(problem.numbers, step)
        if after is not None and problem.target in reachable(after):
            rest = solve(Problem(numbers=after, target=problem.target))
            return None if rest is None else (step, *rest)
    return None


def verify(problem: Problem, response: str) -> bool:
    """Return whether the answer line of `response` solves `problem`, by exact arithmetic.

    The answer line is everything after the one word ``answer``, up to the end: operations
    ``a op b = c`` with a comma between two of them. It counts only if each operand is there to be
    used, each result is right, nothing is left over and the last result is the target. The search
    before the answer line is not judged.

    >>> problem = Problem(numbers=(3, 7, 8), target=29)
    >>> verify(problem, "7 * 3 = 21 . yes . answer 7 * 3 = 21 , 21 + 8 = 29")
    True
    >>> verify(problem, "answer 7 * 3 = 21 , 21 + 8 = 30")
    False
    """
    words = response.split()
    if words.count(ANSWER_WORD) != 1:
        return False
    answer = " ".join(words[words.index(ANSWER_WORD) + 1 :])
    state: State | None = problem.numbers
    for text in answer.split(" , "):
        step = _parse_step(text)
        if step is None or step.result != calculate(step.left, step.operator, step.right):
            return False
        state = apply_step(state, step)
        if state is None:
            return False
    return state == (problem.target,)


def _parse_step(text: str) -> Step | None:
    """Return the operation that five words spell, or None; numbers have no sign or leading zero."""
    match = _STEP_PATTERN.fullmatch(text)
    if match is None:
        return None
    left, operator, right, result = match.groups()
    return Step(left=int(left), operator=operator, right=int(right), result=int(result))
