"""Worked solutions in words: a search with checks, refusals and turning back, then the answer."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from attnscope.models.subjects.countdown.task import (
    ANSWER_WORD,
    LARGEST_VALUE,
    Problem,
    State,
    Step,
    apply_step,
    calculate,
    reachable,
    steps_from,
)

_Item = TypeVar("_Item")

PROMISING_WEIGHT = 4.0
PROMISING_FIRST_WEIGHT = 16.0
THOROUGHNESS = 0.5
GIVE_UP_AFTER = (2, 4)

_OPENINGS = ("", "", "ok .", "let me see .", "hmm .")
_FIRST_TRIES = ("try", "start with", "maybe")
_NEXT_TRIES = ("try", "now try", "what about", "maybe")
_REFUSALS = ("no .", "no .", "not it .")
_DEAD_ENDS = ("wait , no {} works .", "so {} does not work .", "{} is no good .")
_GIVE_UPS = ("wait , start over .", "this goes nowhere . start over .", "hmm , start over .")
_CHEERS = ("yes .", "yes , that is it .", "that is it .")

VOCABULARY_SOURCES = (
    *_OPENINGS,
    *_FIRST_TRIES,
    *_NEXT_TRIES,
    *_REFUSALS,
    *_DEAD_ENDS,
    *_GIVE_UPS,
    *_CHEERS,
    f". , first left back to too high low {ANSWER_WORD}",
)


def write_solution(
    problem: Problem, generator: random.Random, *, thoroughness: float = THOROUGHNESS
) -> str:
    """Return one worked solution of a solvable `problem`; the search varies with `generator`.

    Three numbers are searched operator by operator until the target is met, so that searching on
    always gets there. With four numbers a first operation is chosen, the three numbers that it
    leaves are searched in the same way, and a first operation that leads nowhere is given up: a
    share `thoroughness` of them after all has been tried, the others after a few tries. Promising
    choices come early more often than chance (weight `PROMISING_WEIGHT`), so that a reader of many
    solutions can learn to guess well.

    Raises:
        ValueError: if the target cannot be reached.
    """
    if problem.target not in reachable(problem.numbers):
        raise ValueError(f"no solution exists for: {problem}")
    words: list[str] = [generator.choice(_OPENINGS)]
    steps = _Search(problem.target, generator, words, thoroughness).run(problem.numbers)
    words.append(generator.choice(_CHEERS))
    words.append(f"{ANSWER_WORD} " + " , ".join(map(str, steps)))
    return " ".join(" ".join(words).split())


class _Search:
    """One search for a target, which writes down in `words` what it does."""

    def __init__(
        self, target: int, generator: random.Random, words: list[str], thoroughness: float
    ) -> None:
        self._target = target
        self._thoroughness = thoroughness
        self._generator = generator
        self._words = words

    def run(self, numbers: State) -> tuple[Step, ...]:
        """Return the operations that reach the target from three or four numbers."""
        if len(numbers) == 3:
            return self._search_three(numbers, patience=None)
        for first in self._shuffle(steps_from(numbers), numbers, PROMISING_FIRST_WEIGHT):
            after = self._take("first", numbers, first)
            steps = self._search_three(after, patience=self._patience(after))
            if steps:
                return (first, *steps)
            self._say(_GIVE_UPS)
        raise AssertionError("a solvable problem has a promising first operation")

    def _patience(self, numbers: State) -> int | None:
        """Return after how many tries to give up, or None to search to the end."""
        if self._target in reachable(numbers):
            return None
        if self._thoroughness > 0 and self._generator.random() < self._thoroughness:
            return None
        return self._generator.randint(*GIVE_UP_AFTER)

    def _search_three(self, numbers: State, *, patience: int | None) -> tuple[Step, ...]:
        """Return the last two operations, or nothing if there are none or patience is at an end."""
        tries = 0
        for turn, operator in enumerate(self._shuffle_operators(numbers)):
            self._announce(operator, turn, numbers)
            for step in self._shuffle(_steps_with(operator, numbers), numbers):
                after = self._take("", numbers, step)
                last = self._check_two(after)
                if last is not None:
                    return step, last
                self._say(_REFUSALS)
                tries += 1
                if patience is not None and tries >= patience:
                    return ()
            self._say([sentence.format(operator) for sentence in _DEAD_ENDS])
        return ()

    def _announce(self, operator: str, turn: int, numbers: State) -> None:
        if turn > 0:
            self._words.append(f"back to {' '.join(map(str, numbers))} .")
        self._say(_NEXT_TRIES if turn else _FIRST_TRIES)
        self._words.append(f"{operator} .")

    def _take(self, prefix: str, numbers: State, step: Step) -> State:
        """Write one operation and what it leaves, and return what it leaves."""
        after = apply_step(numbers, step)
        if after is None:
            raise AssertionError(f"{step} is not an operation on {numbers}")
        self._words.append(f"{prefix} {step} . left {' '.join(map(str, after))} .")
        return after

    def _check_two(self, pair: State) -> Step | None:
        """Write the checks of the last two numbers; return the operation that meets the target."""
        for left, operator, right in _worthwhile_checks(pair, self._target):
            result = calculate(left, operator, right)
            if result is None:
                continue
            shown = f"{left} {operator} {right}" + (
                f" = {result}" if result <= LARGEST_VALUE else ""
            )
            if result == self._target:
                self._words.append(f"{shown} .")
                return Step(left=left, operator=operator, right=right, result=result)
            self._words.append(f"{shown} too {'high' if result > self._target else 'low'} .")
            if (result > self._target) == (operator in "+*"):
                return None
        return None

    def _shuffle_operators(self, numbers: State) -> list[str]:
        steps = list(steps_from(numbers))
        promising = {step.operator for step in steps if self._promises(numbers, step)}
        names = sorted({step.operator for step in steps})
        return self._weighted_order(
            names, [PROMISING_WEIGHT if name in promising else 1.0 for name in names]
        )

    def _shuffle(
        self, steps: Iterable[Step], numbers: State, promising_weight: float = PROMISING_WEIGHT
    ) -> list[Step]:
        listed = list(steps)
        weights = [promising_weight if self._promises(numbers, step) else 1.0 for step in listed]
        return self._weighted_order(listed, weights)

    def _promises(self, numbers: State, step: Step) -> bool:
        after = apply_step(numbers, step)
        return after is not None and self._target in reachable(after)

    def _weighted_order(self, items: Sequence[_Item], weights: Sequence[float]) -> list[_Item]:
        """Return `items` in a random order in which the heavier ones tend to come early."""
        clocks = [self._generator.expovariate(weight) for weight in weights]
        return [items[index] for index in sorted(range(len(items)), key=clocks.__getitem__)]

    def _say(self, sentences: Sequence[str]) -> None:
        self._words.append(self._generator.choice(sentences))


def _steps_with(operator: str, numbers: State) -> list[Step]:
    return [step for step in steps_from(numbers) if step.operator == operator]


def _worthwhile_checks(pair: State, target: int) -> list[tuple[int, str, int]]:
    """Return the operations on the last two numbers that could meet the target, the likelier first.

    Upwards only a sum or a product can lead, downwards only a difference or a quotient. From 2 on
    a product is never below the sum and a quotient never above the difference (0 aside), so a
    first check that overshoots ends it.
    """
    right, left = sorted(pair)
    if target == left and right == 1:
        return [(left, "*", right)]
    if target >= left:
        return [(left, "+", right)] + ([(left, "*", right)] if right > 1 else [])
    return [(left, "-", right)] + ([(left, "/", right)] if right > 1 else [])
