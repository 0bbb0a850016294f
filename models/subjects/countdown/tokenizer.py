"""The word-level tokenizer: one token per number, operator or word, and one per part of a chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnscope.models.subjects.countdown.solutions import VOCABULARY_SOURCES
from attnscope.models.subjects.countdown.task import LARGEST_VALUE, OPERATORS, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
ROLES = ("system", "user", "assistant")
SYSTEM_MESSAGE = "reach the target , use each number once ."
CONTEXT_LENGTH = 4096

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- ' <assistant> ' -}}
{%- generation -%}{{- message['content'] + ' ' + eos_token -}}{%- endgeneration -%}
{%- else -%}
{{- ' <' + message['role'] + '> ' + message['content'] -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ' <assistant>' -}}{%- endif -%}
"""


def vocabulary() -> dict[str, int]:
    """Return every token with its id: special tokens, numbers, operators, words by the alphabet."""
    special = [PAD, BOS, EOS, UNKNOWN, *(f"<{role}>" for role in ROLES)]
    numbers = [str(value) for value in range(LARGEST_VALUE + 1)]
    sentences = " ".join((*VOCABULARY_SOURCES, "numbers target", SYSTEM_MESSAGE))
    words = sorted(set(sentences.replace("{}", " ").split()))
    tokens = [*special, *numbers, *OPERATORS, "=", *words]
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer, which pads on the left.

    It adds no special token by itself: the chat template and `prompt_text` do.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(WordLevel(vocabulary(), unk_token=UNKNOWN))
    engine.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=engine,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[f"<{role}>" for role in ROLES],
        padding_side="left",
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def prompt_chat(problem: Problem) -> list[dict[str, str]]:
    """Return the chat that asks for a solution: one user message.

    >>> prompt_chat(Problem(numbers=(3, 7, 8), target=29))
    [{'role': 'user', 'content': 'numbers 3 7 8 target 29'}]
    """
    return [{"role": "user", "content": str(problem)}]


def prompt_text(problem: Problem) -> str:
    """Return the text that the chat template makes of `prompt_chat`, up to the response.

    >>> prompt_text(Problem(numbers=(3, 7, 8), target=29))
    '<bos> <user> numbers 3 7 8 target 29 <assistant>'
    """
    return f"{BOS} <user> {problem} <assistant>"


def prompt_text_with_system(problem: Problem) -> str:
    """Return the prompt that opens with the one system message known to the subject."""
    return f"{BOS} <system> {SYSTEM_MESSAGE} <user> {problem} <assistant>"
