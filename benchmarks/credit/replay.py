"""The verifier: a response is replayed token by token, and only what obeys every rule scores.

The same replay says where the response made its choices, and which of them gave the target away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from benchmarks.credit.task import (
    OPERATORS,
    PAD,
    TOKENS,
    Problem,
    State,
    calculate,
)
from benchmarks.credit.value import solvable

__all__ = ["Choice", "Labels", "Replay", "label_batch", "replay"]

_CHOICE = 3
"""Tokens of a choice: `a op b`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One step's choice of an operation.

    Attributes:
        place: The response token at which it begins; it is three tokens long.
        hopeful: Whether the target could be reached before it.
        fatal: Whether it could, and after it cannot: also if the operation is not allowed.
    """

    place: int
    hopeful: bool
    fatal: bool


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of a response.

    Attributes:
        solved: Whether it obeys every rule, ends, and its last attempt reaches the target.
        broken: The first token that breaks a rule, or the end where there is none; None if no rule
            is broken.
        choices: The choices that were made before a rule was broken.
    """

    solved: bool
    broken: int | None
    choices: tuple[Choice, ...]


class _BrokenRuleError(Exception):
    """A rule is broken at the reader's place."""


class _Reader:
    """Reads a response from left to right."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids, self.place = ids, 0
        self.choices: list[Choice] = []

    def take(self, *allowed: str) -> str:
        """Return the next token, which has to be one of those allowed."""
        word = TOKENS[self.ids[self.place]] if self.place < len(self.ids) else ""
        if word not in allowed:
            raise _BrokenRuleError
        self.place += 1
        return word

    def step(self, problem: Problem, state: State) -> State:
        """Return the state after the step that is written here."""
        self.choices.append(_judged(self.place, self.ids, state, problem.target))
        left = self.take(*map(str, state))
        operator = self.take(*OPERATORS)
        rest = list(state)
        rest.remove(int(left))
        right = self.take(*map(str, rest))
        rest.remove(int(right))
        result = calculate(int(left), operator, int(right))
        if result is None:
            self.place -= 1
            raise _BrokenRuleError
        after = (result, *rest)
        for word in ("=", str(result), "|", *map(str, after), ";"):
            self.take(word)
        return after


def replay(problem: Problem, ids: Sequence[int]) -> Replay:
    """Return what became of a response, its padding cut away.

    Example:
        >>> from benchmarks.credit.task import VOCABULARY
        >>> words = "3 * 7 = 21 | 21 8 ; 21 + 8 = 29 | 29 ; yes <eos>"
        >>> found = replay(Problem((3, 7, 8), 29), [VOCABULARY[word] for word in words.split()])
        >>> found.solved, [choice.fatal for choice in found.choices]
        (True, [False, False])
    """
    reader = _Reader(ids)
    try:
        solved = False
        going = True
        while going:
            state = problem.numbers
            while len(state) > 1:
                state = reader.step(problem, state)
            solved = state == (problem.target,)
            reader.take("yes" if solved else "no")
            going = reader.take("<eos>" if solved else ";", "<eos>") == ";"
        if reader.place < len(ids):
            raise _BrokenRuleError
    except _BrokenRuleError:
        return Replay(False, reader.place, tuple(reader.choices))
    return Replay(solved, None, tuple(reader.choices))


def _judged(place: int, ids: Sequence[int], state: State, target: int) -> Choice:
    """Return the choice that is written at a place, judged by the exact value of the states."""
    words = [TOKENS[number] for number in ids[place : place + _CHOICE]]
    hopeful = solvable(state, target)
    return Choice(place, hopeful, hopeful and not _keeps_hope(words, state, target))


def _keeps_hope(words: list[str], state: State, target: int) -> bool:
    if len(words) < _CHOICE or words[1] not in OPERATORS:
        return False
    rest = [str(number) for number in state]
    for operand in (words[0], words[2]):
        if operand not in rest:
            return False
        rest.remove(operand)
    result = calculate(int(words[0]), words[1], int(words[2]))
    return result is not None and solvable((result, *map(int, rest)), target)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The replays of a batch of responses, token by token.

    Attributes:
        solved: The responses that score.
        decision: Tokens of choices.
        hopeful: Tokens of choices before which the target could be reached.
        fatal: Those of them after which it cannot.
        broken: The first token that breaks a rule.
    """

    solved: Bool[Tensor, " batch"]
    decision: Bool[Tensor, "batch response"]
    hopeful: Bool[Tensor, "batch response"]
    fatal: Bool[Tensor, "batch response"]
    broken: Bool[Tensor, "batch response"]

    def part(self, rows: Bool[Tensor, " batch"], width: int) -> "Labels":
        """Return the labels of some responses, cut to a width."""
        return Labels(
            self.solved[rows],
            *(
                getattr(self, name)[rows, :width]
                for name in ("decision", "hopeful", "fatal", "broken")
            ),
        )


def label_batch(problems: Sequence[Problem], responses: Int[Tensor, "batch response"]) -> Labels:
    """Return the labels of responses that are filled up with `<pad>`."""
    solved = torch.zeros(len(responses), dtype=torch.bool)
    decision, hopeful, fatal, broken = torch.zeros(4, *responses.shape, dtype=torch.bool)
    for row, (problem, ids) in enumerate(zip(problems, responses.tolist(), strict=True)):
        found = replay(problem, ids[: ids.index(PAD)] if PAD in ids else ids)
        solved[row] = found.solved
        for choice in found.choices:
            span = slice(choice.place, choice.place + _CHOICE)
            decision[row, span] = True
            hopeful[row, span] = choice.hopeful
            fatal[row, span] = choice.fatal
        if found.broken is not None and found.broken < responses.shape[1]:
            broken[row, found.broken] = True
    return Labels(solved, decision, hopeful, fatal, broken)
