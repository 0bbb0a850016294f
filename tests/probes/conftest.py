"""A tiny Qwen2 with a tokenizer that has a chat template."""

import pytest
import torch

from attnscope.probes import Subject

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "it", "was", "so", "back"]
TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|> {{ message['content'] }} <|end|> "
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="<|end|>"
    )
    made.add_special_tokens({"additional_special_tokens": special[2:]})
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def model():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=5,
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture
def subject(model, tokenizer):
    return Subject(model, tokenizer, name="tiny")


@pytest.fixture
def tokens():
    return torch.randint(6, 40, (1, 17), generator=torch.Generator().manual_seed(1))
