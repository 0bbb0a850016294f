"""Worked solutions: always right, the same for the same seed, and honest at every step."""

import random

import pytest

from attnscope.models.subjects.countdown import Problem, sample_problems, verify, write_solution
from attnscope.models.subjects.countdown.task import calculate
from attnscope.models.subjects.countdown.tokenizer import vocabulary


def solutions(numbers: int, count: int = 300) -> list[tuple[Problem, list[str]]]:
    problems = sample_problems(count, 2, numbers=numbers, split="train")
    generator = random.Random(3)  # noqa: S311
    return [(problem, write_solution(problem, generator).split()) for problem in problems]


@pytest.mark.parametrize("numbers", [3, 4])
def test_every_solution_passes_the_verifier_in_known_words(numbers: int) -> None:
    known = vocabulary()
    for problem, words in solutions(numbers):
        assert verify(problem, " ".join(words))
        assert all(word in known for word in words)


@pytest.mark.parametrize("numbers", [3, 4])
def test_every_operation_of_the_search_is_true(numbers: int) -> None:
    for _, words in solutions(numbers):
        for place, word in enumerate(words):
            if word == "=":
                left, operator, right, _, result = words[place - 3 : place + 2]
                assert calculate(int(left), operator, int(right)) == int(result)


@pytest.mark.parametrize("numbers", [3, 4])
def test_every_comparison_with_the_target_is_true(numbers: int) -> None:
    for problem, words in solutions(numbers):
        for place, word in enumerate(words):
            if word == "too":
                shown = words[place - 1] if words[place - 2] == "=" else "101"
                is_high = int(shown) > problem.target
                assert words[place + 1] == ("high" if is_high else "low")


def test_a_seed_repeats_a_solution_and_seeds_vary_it() -> None:
    problem = Problem(numbers=(13, 14, 2), target=29)
    texts = [write_solution(problem, random.Random(seed)) for seed in range(20)]  # noqa: S311
    assert texts[0] == write_solution(problem, random.Random(0))  # noqa: S311
    assert len(set(texts)) > 10


def test_solutions_show_search_that_fails_and_turns_back() -> None:
    texts = [" ".join(words) for _, words in solutions(3) + solutions(4)]
    for phrase in ("no .", "wait ,", "too high", "too low", "back to", "start over", "yes"):
        assert sum(phrase in text for text in texts) > 10, phrase


def test_an_unreachable_target_is_refused() -> None:
    with pytest.raises(ValueError, match="no solution exists for: numbers 1 1 1 target 50"):
        write_solution(Problem(numbers=(1, 1, 1), target=50), random.Random(0))  # noqa: S311
