"""Short training runs of TRL on the CPU, without a network."""

from contextlib import redirect_stdout
from io import StringIO

import torch

from tests.credit.conftest import tiny_policy

WORDS = [f"w{number}" for number in range(3, 40)]
GOOD = {"w7", "w9", "w11"}
PROMPTS = ["w3 w4 w5", "w6 w7", "w8", "w9 w10 w11 w12"]


def word_tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<eos>", *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        padding_side="left",
    )


def reward(completions, **_):
    return [
        float(sum(word in ("w7", "w9", "w11") for word in text.split())) for text in completions
    ]


def made(trainer_class, folder, *, steps=2, policy=None, settings=None, **options):
    """Return a trainer of a tiny policy, the same for the same arguments."""
    from datasets import Dataset
    from trl import GRPOConfig

    torch.manual_seed(0)
    config = GRPOConfig(
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "save_strategy": "no",
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 20,
            "max_steps": steps,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "disable_tqdm": True,
            "seed": 1,
        }
        | (settings or {})
    )
    return trainer_class(
        policy or tiny_policy(eos_token_id=2),
        **{
            "reward_funcs": reward,
            "args": config,
            "train_dataset": Dataset.from_dict({"prompt": PROMPTS * 2}),
            "processing_class": word_tokenizer(),
        }
        | options,
    )


def trained(trainer):
    """Train, and return the parameters and what was logged of credit."""
    with redirect_stdout(StringIO()):
        trainer.train()
    parameters = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    logged = [
        {name: value for name, value in entry.items() if name.startswith("credit/")}
        for entry in trainer.state.log_history
    ]
    return parameters, [entry for entry in logged if entry]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)
