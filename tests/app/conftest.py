"""A tiny random model on disk, traces of it, and a way to run commands."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from typer.testing import CliRunner

from attnscope.app.main import app

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>"]
WORDS = [*SPECIAL, "zero", "one", "two", "three", "four", "five", "six", "seven"]
CHAT = (
    "{{- bos_token -}}{%- for message in messages -%}"
    "{{- ' <' + message['role'] + '> ' + message['content'] -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- ' <assistant>' -}}{%- endif -%}"
)

Run = Callable[..., object]


def save_tiny_model(folder: Path) -> None:
    """Write a random Qwen3 of three layers and four heads, and a tokenizer of words."""
    engine = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    engine.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=engine,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=CHAT,
    )
    config = Qwen3Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config)
    model.generation_config.suppress_tokens = list(range(len(SPECIAL)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def run():
    """Return what runs a command line in this process, off a terminal."""
    runner = CliRunner()

    def invoke(*words: object):
        return runner.invoke(app, [str(word) for word in words], env={"COLUMNS": "100"})

    return invoke


@pytest.fixture(scope="session")
def trace_file(run, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace with a prompt of three tokens and a response of seven."""
    path = tmp_path_factory.mktemp("traces") / "run.safetensors"
    words = ("--text", "zero one two", "--response", "three four five six seven one two")
    result = run("capture", model_folder, *words, "-o", path)
    assert result.exit_code == 0, result.output
    return path
