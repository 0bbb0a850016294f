"""The tokenizer: one token per word, exact there and back, and a template that marks the roles."""

import random

import pytest
from transformers import PreTrainedTokenizerFast

from attnscope.models.subjects.countdown import (
    Problem,
    build_tokenizer,
    prompt_chat,
    prompt_text,
    prompt_text_with_system,
    sample_problems,
    write_solution,
)
from attnscope.models.subjects.countdown.tokenizer import SYSTEM_MESSAGE, vocabulary

PROBLEM = Problem(numbers=(3, 7, 8), target=29)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_text_survives_encoding_and_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    for problem in sample_problems(50, 0, numbers=4):
        text = f"{prompt_text(problem)} {write_solution(problem, random.Random(1))} <eos>"  # noqa: S311
        ids = tokenizer.encode(text)
        assert ids == [vocabulary()[word] for word in text.split()]
        assert tokenizer.decode(ids) == text


def test_the_template_renders_the_training_prompts(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = prompt_chat(PROBLEM)
    system = [{"role": "system", "content": SYSTEM_MESSAGE}]

    def render(messages: list[dict[str, str]]) -> str:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    assert (
        render(chat) == prompt_text(PROBLEM) == "<bos> <user> numbers 3 7 8 target 29 <assistant>"
    )
    assert render(system + chat) == prompt_text_with_system(PROBLEM)


def test_the_template_marks_exactly_the_words_of_the_assistant(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    response = "7 * 3 = 21 . yes ."
    chat = [*prompt_chat(PROBLEM), {"role": "assistant", "content": response}]
    encoded = tokenizer.apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    assert tokenizer.decode([token for token, mask in pairs if mask]) == f"{response} <eos>"


def test_prompts_are_padded_on_the_left(tokenizer: PreTrainedTokenizerFast) -> None:
    longer = Problem(numbers=(3, 7, 8, 9), target=29)
    ids = tokenizer([prompt_text(PROBLEM), prompt_text(longer)], padding=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[0])[:2] == ["<pad>", "<bos>"]
    assert tokenizer.convert_ids_to_tokens(ids[1])[0] == "<bos>"


def test_words_outside_the_vocabulary_become_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(tokenizer.encode("numbers 101 elephant 7")) == "numbers <unk> <unk> 7"
