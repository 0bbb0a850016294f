"""A tiny model in a folder, what loads it in any process, and datasets to capture."""

from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from attnscope.probes import load
from attnscope.probes.bulk import Item, Plan, Worker

WORDS = ["<unk>", "zero", "one", "two", "three", "four", "five", "six", "seven"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """Return the folder of a random Qwen3 of two layers and two heads."""
    folder = tmp_path_factory.mktemp("tiny")
    engine = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    engine.pre_tokenizer = WhitespaceSplit()
    config = Qwen3Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=engine, unk_token="<unk>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def load_tiny(model_folder):
    """Return what loads the tiny model, here or in another process."""
    return partial(load, model_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def subject(load_tiny):
    """Return the tiny model."""
    return load_tiny()


@pytest.fixture
def make_worker(subject, tmp_path):
    """Return a maker of workers that share one model."""

    def make(**plan) -> Worker:
        return Worker(lambda: subject, str(tmp_path / "store"), Plan(model="tiny", **plan))

    return make


@pytest.fixture(scope="session")
def items() -> list[Item]:
    """Return six items of different lengths, two of them alike but for their names."""
    texts = ["one", "one two", "three", "one two three four", "one", "five six seven one two"]
    return [
        Item(name=str(number), text=text, response="seven six" if number == 3 else None)
        for number, text in enumerate(texts)
    ]
