"""The task, its exact value and its verifier."""

import doctest
import re
from collections import Counter
from itertools import permutations

import pytest
import torch

from benchmarks.credit import auroc, contrasts, grpo, perturbation, replay, stability, task, value
from benchmarks.credit.replay import label_batch
from benchmarks.credit.task import (
    EOS,
    LONGEST,
    OPERATORS,
    PAD,
    PROMPT,
    TOKENS,
    VOCABULARY,
    Problem,
    generator_for,
    problems,
    prompt_ids,
    stream_problems,
    write_response,
)
from benchmarks.credit.value import solvable

PROBLEM = Problem((3, 7, 8), 29)
SOLUTION = "3 * 7 = 21 | 21 8 ; 21 + 8 = 29 | 29 ; yes <eos>"
FAILURE = "8 - 7 = 1 | 1 3 ; 1 + 3 = 4 | 4 ; no ;"


def ids(words):
    return [VOCABULARY[word] for word in words.split()]


@pytest.mark.parametrize(
    "module", [auroc, contrasts, grpo, perturbation, replay, stability, task, value]
)
def test_examples_in_docstrings_are_right(module):
    assert doctest.testmod(module).failed == 0


def searches(count, seed=0):
    generator = generator_for("searches", seed)
    for problem, _ in zip(stream_problems(generator, "train"), range(count), strict=False):
        yield problem, write_response(problem, generator)


def test_splits_share_no_problem_in_any_order_and_hold_a_third_out():
    train, test = ({problem.key for problem in problems(split)} for split in ("train", "test"))
    assert not train & test
    assert (len(train), len(test)) == (629, 295)


def test_every_problem_is_solvable_by_brute_force():
    for problem in problems("test")[::20]:
        found = set()
        for a, b, c in permutations(problem.numbers):
            for first in OPERATORS:
                middle = task.calculate(a, first, b)
                if middle is not None:
                    for second in OPERATORS:
                        found |= {task.calculate(middle, second, c)}
                        found |= {task.calculate(c, second, middle)}
        assert problem.target in found
        assert set(value.reachable(problem.numbers)) == found - {None}


def test_written_searches_obey_every_rule():
    for problem, response in searches(300):
        found = replay.replay(problem, response)
        assert found.broken is None
        assert found.solved == (response[-2:] == ids("yes <eos>"))
        assert len(response) <= LONGEST
        assert len(prompt_ids(problem)) == PROMPT


def test_searches_solve_less_than_half():
    solved = [replay.replay(problem, response).solved for problem, response in searches(1000)]
    assert 0.35 < sum(solved) / len(solved) < 0.5


def spoken(words):
    return replay.replay(PROBLEM, ids(words))


def test_a_solution_scores_after_failures_too():
    assert spoken(SOLUTION).solved
    assert spoken(f"{FAILURE} {FAILURE} {SOLUTION}").solved


@pytest.mark.parametrize(
    ("words", "broken"),
    [
        (SOLUTION.replace(" <eos>", ""), 18),  # no end
        (SOLUTION.replace("yes", "no"), 17),  # a false refusal
        (SOLUTION.replace("yes", "no ;"), 17),
        (FAILURE.replace("no ;", "yes <eos>"), 17),  # a false claim
        (SOLUTION.replace("= 29 | 29", "= 28 | 28"), 13),  # wrong arithmetic
        (SOLUTION.replace("| 21 8", "| 21 7"), 7),  # a number from nowhere
        (SOLUTION.replace("3 * 7", "7 * 7"), 2),  # a number used twice
        (SOLUTION.replace("21 + 8", "21 / 8"), 11),  # no whole number
        ("29 + 0 = 29 | 29 8 ;", 0),
        ("yes <eos>", 0),
        ("", 0),
        (f"{SOLUTION} {SOLUTION}", 19),  # on and on
        (f"<pad> {SOLUTION}", 0),
    ],
)
def test_whoever_breaks_a_rule_scores_nothing(words, broken):
    found = spoken(words)
    assert not found.solved
    assert found.broken == broken


def judged_by_text(problem, response):
    """A second judge, which reads the words from the end and shares no code with the replay."""
    words = " ".join(TOKENS[number] for number in response)
    if not words.endswith(" yes <eos>") or words.count("<eos>") != 1:
        return False
    attempts = words.removesuffix(" yes <eos>").split(" no ; ")
    outcomes = [_attempt_value(problem, attempt) for attempt in attempts]
    failures = all(made not in (None, problem.target) for made in outcomes[:-1])
    return failures and outcomes[-1] == problem.target


STEP_TEXT = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+) \| ([\d ]+)")


def _attempt_value(problem, attempt):
    steps = [STEP_TEXT.fullmatch(text) for text in attempt.removesuffix(" ;").split(" ; ")]
    if len(steps) != 2 or None in steps or not attempt.endswith(" ;"):
        return None
    numbers = Counter(problem.numbers)
    for step in steps:
        a, b, made = (int(step[group]) for group in (1, 3, 4))
        right = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[step[2]]
        numbers.subtract((a, b))
        rest = [int(word) for word in step[5].split(" ") if word]
        if min(numbers.values()) < 0 or right != made or not 0 <= made <= 40:
            return None
        if rest[0] != made or Counter(rest[1:]) != +numbers or "  " in step[5]:
            return None
        numbers[made] += 1
    return made


def test_no_spoiled_trace_scores_unless_it_is_another_right_one():
    generator = generator_for("spoiled")
    spoiled_ones = 0
    for problem, response in searches(2000, seed=2):
        spoiled = list(response)
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(len(spoiled))
            kind = generator.choice(("replace", "insert", "delete", "cut"))
            if kind == "replace":
                spoiled[place] = generator.randrange(len(TOKENS))
            elif kind == "insert":
                spoiled.insert(place, generator.randrange(len(TOKENS)))
            elif kind == "delete" and len(spoiled) > 1:
                del spoiled[place]
            elif kind == "cut":
                spoiled = spoiled[: place + 1]
        scored = replay.replay(problem, spoiled).solved
        assert scored == judged_by_text(problem, spoiled), task.spelled(spoiled)
        spoiled_ones += not scored
    assert spoiled_ones > 1500


def test_choices_are_judged_by_the_exact_value():
    first, second = spoken(FAILURE + " " + SOLUTION).choices[:2]
    assert (first.place, first.hopeful, first.fatal) == (0, True, True)
    assert (second.place, second.hopeful, second.fatal) == (9, False, False)
    assert [choice.place for choice in spoken(f"{FAILURE} {SOLUTION}").choices] == [0, 9, 19, 28]
    assert not any(choice.fatal for choice in spoken(SOLUTION).choices)


def test_an_operation_that_is_not_allowed_is_a_fatal_choice():
    (choice,) = spoken("7 / 3 = 2 | 2 8 ;").choices
    assert choice.fatal


def test_a_fatal_choice_leaves_no_way_to_the_target():
    for problem, response in searches(200, seed=3):
        state = problem.numbers
        for choice in replay.replay(problem, response).choices:
            assert choice.hopeful == solvable(state, problem.target)
            left = response[choice.place + 6 : choice.place + 4 + len(state) + 1]
            after = tuple(int(TOKENS[number]) for number in left)
            assert choice.fatal == (choice.hopeful and not solvable(after, problem.target))
            state = after if len(after) > 1 else problem.numbers


def test_labels_put_replays_where_the_tokens_are():
    rows = [ids(SOLUTION), [*ids(FAILURE)[:-1], EOS], ids("3 * 7 = 22 | 22 8 ;")]
    padded = torch.full((3, 25), PAD)
    for row, tokens in enumerate(rows):
        padded[row, : len(tokens)] = torch.tensor(tokens)
    labels = label_batch([PROBLEM] * 3, padded)
    assert labels.solved.tolist() == [True, False, False]
    assert labels.decision[0].nonzero().flatten().tolist() == [0, 1, 2, 9, 10, 11]
    assert labels.fatal[1].nonzero().flatten().tolist() == [0, 1, 2]
    assert labels.hopeful[1].nonzero().flatten().tolist() == [0, 1, 2]
    assert labels.broken[2].nonzero().flatten().tolist() == [4]
    part = labels.part(torch.tensor([False, True, False]), 19)
    assert part.fatal.shape == (1, 19)
    assert part.solved.tolist() == [False]
