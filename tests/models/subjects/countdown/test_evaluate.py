"""The shipped weights: they load, they solve what the model card says, and they stay small."""

from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnscope.models.subjects.countdown import WEIGHTS, Problem, load_subject, sample_problems
from attnscope.models.subjects.countdown.evaluate import accuracy, respond


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep tiny steps from waiting for threads that others need."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("numbers", "count", "longest", "at_least"), [(3, 40, 256, 0.9), (4, 24, 160, 0.1)]
)
def test_the_shipped_weights_solve_held_out_problems(
    numbers: int, count: int, longest: int, at_least: float
) -> None:
    model, tokenizer = load_subject()
    problems = sample_problems(count, 7, numbers=numbers, split="test")
    responses = respond(model, tokenizer, problems, longest=longest)
    assert accuracy(problems, responses) >= at_least


def test_the_folder_loads_through_the_automatic_classes() -> None:
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert tokenizer.padding_side == "left"
    assert tokenizer.chat_template


def test_the_weights_stay_under_twelve_megabytes() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 12e6


def test_accuracy_is_the_share_that_passes() -> None:
    problem = Problem(numbers=(1, 2, 3), target=6)
    responses = ["answer 3 * 2 = 6 , 6 * 1 = 6", "answer 6", "3 * 2 = 6", ""]
    assert accuracy([problem] * 4, responses) == 0.25
