"""Problems: the same for the same seed, solvable, and never in both splits."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.models.subjects.countdown import Problem, reachable, sample_problems, split_of


@pytest.mark.parametrize("numbers", [3, 4])
@pytest.mark.parametrize("split", ["test", "train"])
def test_problems_are_solvable_and_repeat_with_the_seed(numbers: int, split: str) -> None:
    problems = sample_problems(50, 5, numbers=numbers, split=split)
    assert problems == sample_problems(50, 5, numbers=numbers, split=split)
    assert problems != sample_problems(50, 6, numbers=numbers, split=split)
    assert all(problem.target in reachable(problem.numbers) for problem in problems)
    assert {len(problem.numbers) for problem in problems} == {numbers}


def test_the_splits_share_no_problem_even_reordered() -> None:
    def keys(split: str) -> set[tuple[tuple[int, ...], int]]:
        problems = sample_problems(1000, 0, numbers=3, split=split)
        return {(tuple(sorted(problem.numbers)), problem.target) for problem in problems}

    assert len(keys("test")) == 1000
    assert not keys("test") & keys("train")


@given(st.lists(st.integers(1, 20), min_size=3, max_size=4), st.integers(10, 100), st.integers())
def test_the_order_of_the_numbers_does_not_change_the_split(
    numbers: list[int], target: int, seed: int
) -> None:
    shuffled = random.Random(seed).sample(numbers, len(numbers))  # noqa: S311
    first = Problem(numbers=tuple(numbers), target=target)
    assert split_of(first) == split_of(Problem(numbers=tuple(shuffled), target=target))


def test_the_split_of_known_problems_stays_what_it_was() -> None:
    problems = [Problem(numbers=(3, 7, 8), target=target) for target in range(10, 40)]
    held_out = [problem.target for problem in problems if split_of(problem) == "test"]
    assert held_out == HELD_OUT_TARGETS


def test_unknown_splits_and_sizes_are_refused_with_what_exists() -> None:
    with pytest.raises(ValueError, match=r"no split 'dev'; there are \['test', 'train'\]"):
        sample_problems(1, 0, split="dev")
    with pytest.raises(ValueError, match=r"no problems with 5 numbers; .* \[3, 4\]"):
        sample_problems(1, 0, numbers=5)


def test_asking_for_more_held_out_problems_than_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="too many different problems asked for; found only"):
        sample_problems(10_000, 0, numbers=3)


# Printed once by split_of; a change would mix training problems into the test split.
HELD_OUT_TARGETS = [12, 21, 26, 34]
