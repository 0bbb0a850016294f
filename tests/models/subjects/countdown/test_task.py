"""The rules of countdown: arithmetic, what is reachable, and a verifier that cannot be gamed."""

import random
from collections import Counter
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.models.subjects.countdown import (
    Problem,
    reachable,
    sample_problems,
    solve,
    verify,
    write_solution,
)
from attnscope.models.subjects.countdown.tokenizer import vocabulary

PROBLEM = Problem(numbers=(3, 7, 8), target=29)
PROBLEMS = [*sample_problems(40, 1, numbers=3), *sample_problems(40, 1, numbers=4)]
WORDS = st.sampled_from(sorted(vocabulary()))


def replay_in_fractions(problem: Problem, answer: list[str]) -> bool:
    """Judge an answer line slowly: a bag of fractions, one operation after the other."""
    bag = Counter(Fraction(number) for number in problem.numbers)
    for start in range(0, len(answer), 6):
        left, operator, right, equals, result, *comma = answer[start : start + 6]
        operands = Counter([Fraction(left), Fraction(right)])
        values = {
            "+": Fraction(left) + Fraction(right),
            "-": Fraction(left) - Fraction(right),
            "*": Fraction(left) * Fraction(right),
            "/": Fraction(left) / Fraction(right) if right != "0" else Fraction(-1),
        }
        legal = operands <= bag and values[operator] == Fraction(result) >= 0
        if not legal or equals != "=" or comma not in ([], [","]):
            return False
        bag = bag - operands + Counter([Fraction(result)])
    return bag == Counter([Fraction(problem.target)]) and answer[-1] != ","


def reachable_by_trying(numbers: tuple[int, ...]) -> set[int]:
    """Return what every order of the numbers and every pair of operations makes, by brute force."""
    if len(numbers) == 1:
        return set(numbers)
    found = set()
    for first, second, *rest in permutations(numbers):
        results = [first + second, first - second, first * second]
        results += [first // second] if first % second == 0 else []
        for result in results:
            if 1 <= result <= 100:
                found |= reachable_by_trying((result, *rest))
    return found


@pytest.mark.parametrize(
    "answer",
    [
        "7 * 3 = 21 , 21 + 8 = 29",
        "3 * 7 = 21 , 8 + 21 = 29",
        "8 * 7 = 56 , 56 / 2 = 28 , answer",
        "7 * 3 = 21 , 21 + 8 = 29 ,",
        "7 * 3 = 21 . 21 + 8 = 29",
        "7 * 3 = 22 , 22 + 7 = 29",
        "8 + 21 = 29",
        "29 + 0 = 29",
        "7 * 3 = 21",
        "7 * 3 = 21 , 21 + 8 = 29 , 29 + 8 = 37",
        "7 * 3 = 21 , 21 + 8 = 29 , 3 - 3 = 0",
        "7 * 3 = 21 , 21 + 08 = 29",
        "7 * 3 = 21 , 21 + 8 = 2_9",
        "7 * 3 = 21 , 21 + ٨ = 29",
        "7 ** 3 = 343",
        "3 - 7 = -4 , 8 - -4 = 12",
        "8 / 3 = 2 , 2 + 7 = 9",
        "",
    ],
)
def test_only_a_complete_and_exact_answer_passes(answer: str) -> None:
    correct = {"7 * 3 = 21 , 21 + 8 = 29", "3 * 7 = 21 , 8 + 21 = 29"}
    assert verify(PROBLEM, f"try * . answer {answer}") is (answer in correct)


def test_a_response_without_answer_line_or_with_two_fails() -> None:
    answer = "answer 7 * 3 = 21 , 21 + 8 = 29"
    assert not verify(PROBLEM, answer.removeprefix("answer "))
    assert not verify(PROBLEM, f"{answer} {answer}")
    assert verify(PROBLEM, f"3 + 7 = 99 . {answer}")


@given(st.sampled_from(PROBLEMS), st.integers(0, 2**32), st.data())
def test_no_changed_answer_passes_unless_fractions_agree(
    problem: Problem, seed: int, data: st.DataObject
) -> None:
    words = write_solution(problem, random.Random(seed)).split()  # noqa: S311
    answer = words[words.index("answer") + 1 :]
    assert verify(problem, " ".join(words))
    place = data.draw(st.integers(0, len(answer) - 1))
    removed = data.draw(st.integers(0, 6))
    changed = [*answer[:place], *data.draw(st.lists(WORDS, max_size=3)), *answer[place + removed :]]
    if verify(problem, " ".join(["answer", *changed])):
        assert replay_in_fractions(problem, changed)


@given(st.sampled_from(PROBLEMS), st.lists(WORDS, max_size=24))
def test_words_at_random_never_pass(problem: Problem, words: list[str]) -> None:
    assert not verify(problem, " ".join(words)) or replay_in_fractions(
        problem, words[words.index("answer") + 1 :]
    )


@given(st.sampled_from(PROBLEMS), st.text(max_size=60))
def test_any_text_at_all_is_judged_without_an_error(problem: Problem, text: str) -> None:
    assert verify(problem, f"answer {text}") is False


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
def test_reachable_values_are_those_that_brute_force_finds(numbers: tuple[int, ...]) -> None:
    assert reachable(numbers) == reachable_by_trying(numbers)


@given(st.lists(st.integers(1, 20), min_size=3, max_size=3).map(tuple), st.integers(10, 100))
def test_solve_finds_a_verified_answer_exactly_when_one_exists(
    numbers: tuple[int, ...], target: int
) -> None:
    problem = Problem(numbers=numbers, target=target)
    steps = solve(problem)
    assert (steps is not None) == (target in reachable(numbers))
    if steps is not None:
        assert verify(problem, "answer " + " , ".join(map(str, steps)))
