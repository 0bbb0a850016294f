"""What token credit adds to a training step of TRL: listening, or a forward pass of its own.

`python -m benchmarks.credit_overhead` trains the same policy in all ways, one step of each after
the other, on responses of one length. The rows are kept in `credit_overhead.json` and drawn as a
table.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from attnscope.credit import (
    Coupled,
    HeadCalibration,
    calibrate,
    completion_batch,
    credit_aware,
    credit_riding,
)
from benchmarks.results import write_section

PLAIN, NAMED, RANKED = "TRL alone", "listening, named heads", "listening, heads ranked by batch"
EXTRA = "a forward pass of its own"
_DATA = Path(__file__).with_name("credit_overhead.json")
_PROMPT = "w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18"
_VOCABULARY = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One way, as medians over the rounds.

    Attributes:
        way: How credit is read.
        step: Seconds of a step, from prompts to updated weights.
        generation: Seconds of it in which responses are written.
        times: Step by the step of TRL alone in the same round.
        times_update: The same without the seconds of writing.
    """

    way: str
    step: float
    generation: float
    times: float
    times_update: float


def policy(width: int, layers: int) -> Any:
    """Return the policy of the benchmark: a Qwen2 with random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=_VOCABULARY,
            hidden_size=width,
            intermediate_size=11 * width // 4,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            pad_token_id=0,
            eos_token_id=2,
        )
    )


def tokenizer() -> Any:
    """Return a tokenizer of as many words as the policy has tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = [f"w{number}" for number in range(3, _VOCABULARY)]
    vocabulary = {word: n for n, word in enumerate(["<pad>", "<unk>", "<eos>", *words])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **special)


def settings(folder: str, length: int, responses: int) -> Any:
    """Return TRL's defaults but for the processor, and responses of one length."""
    from trl.trainer.grpo_config import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        num_generations=responses,
        per_device_train_batch_size=responses,
        max_completion_length=length,
        generation_kwargs={"min_new_tokens": length},
        max_steps=1,
    )


class Stepper:
    """A trainer that is asked for one step at a time.

    Attributes:
        trainer: The trainer, after a first step.
        writing: Seconds in which it has written responses.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.writing = trainer, 0.0
        generate = trainer._generate

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            found = generate(*arguments, **options)
            self.writing += time.perf_counter() - start
            return found

        trainer._generate = timed
        with redirect_stdout(StringIO()):
            trainer.train()
        self._prompts = next(iter(trainer.get_train_dataloader()))

    def step(self) -> tuple[float, float]:
        """Return the seconds of a whole step, and of them those of writing."""
        self.writing, start = 0.0, time.perf_counter()
        trainer = self.trainer
        trainer.training_step(trainer.model_wrapped, self._prompts, None)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return time.perf_counter() - start, self.writing


def steppers(folder: str, size: tuple[int, int], length: int, responses: int) -> dict[str, Stepper]:
    """Return what is compared, every way with a policy of its own from the same weights."""
    from datasets import Dataset
    from trl.trainer.grpo_trainer import GRPOTrainer

    heads = _heads(policy(*size), length)
    ways: Mapping[str, tuple[type, Mapping[str, Any]]] = {
        PLAIN: (GRPOTrainer, {}),
        NAMED: (credit_riding(GRPOTrainer), {"credit": Coupled(), "calibration": heads}),
        RANKED: (credit_riding(GRPOTrainer), {"credit": Coupled()}),
        EXTRA: (credit_aware(GRPOTrainer), {"credit": Coupled()}),
    }
    make: Callable[..., Any] = lambda kind, own: kind(  # noqa: E731
        policy(*size),
        reward_funcs=_reward,
        args=settings(folder, length, responses),
        train_dataset=Dataset.from_dict({"prompt": [_PROMPT] * responses}),
        processing_class=tokenizer(),
        **own,
    )
    return {way: Stepper(make(kind, own)) for way, (kind, own) in ways.items()}


def _heads(network: Any, length: int) -> HeadCalibration:
    """Return the heads that a policy's own responses would be read by."""
    generator = torch.Generator().manual_seed(1)
    prompt, response = (
        torch.randint(3, _VOCABULARY, (2, count), generator=generator) for count in (16, length)
    )
    ones = torch.ones_like
    batch = completion_batch(prompt, ones(prompt), response, ones(response))
    return calibrate(network, batch, Coupled().preset)


def _reward(completions: list[str], **_: Any) -> list[float]:
    """Return a number that differs between responses, so that there is something to learn."""
    return [float(len(set(text.split()))) for text in completions]


def measure(size: tuple[int, int], length: int, responses: int, rounds: int) -> list[Row]:
    """Return the rows; in each round every way makes a step, and is held to TRL's own beside it."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = steppers(folder, size, length, responses)
        runs = [{way: stepper.step() for way, stepper in found.items()} for _ in range(rounds)]
    return [_row(way, runs) for way in found]


def _row(way: str, runs: list[dict[str, tuple[float, float]]]) -> Row:
    whole = [run[way][0] / run[PLAIN][0] for run in runs]
    update = [(run[way][0] - run[way][1]) / (run[PLAIN][0] - run[PLAIN][1]) for run in runs]
    return Row(
        way=way,
        step=median(run[way][0] for run in runs),
        generation=median(run[way][1] for run in runs),
        times=median(whole),
        times_update=median(update),
    )


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| | seconds a step | of them writing | times TRL alone | without the writing |",
        "| --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        seconds = f"{row.step:.2f} | {row.generation:.2f}"
        lines.append(f"| {row.way} | {seconds} | {row.times:.3f} | {row.times_update:.3f} |")
    return "\n".join(lines)


def main(
    width: Annotated[int, typer.Option(help="Width of the policy.")] = 512,
    layers: Annotated[int, typer.Option(help="Layers of the policy.")] = 8,
    length: Annotated[int, typer.Option(help="Tokens of a response.")] = 512,
    responses: Annotated[int, typer.Option(help="Responses of a step.")] = 8,
    rounds: Annotated[int, typer.Option(help="Steps of each way.")] = 7,
    keep: Annotated[bool, typer.Option(help="Write the table into RESULTS.md.")] = True,
) -> None:
    """Measure, and write the table into RESULTS.md."""
    rows = measure((width, layers), length, responses, rounds)
    if not keep:
        print(table(rows))
        return
    size = f"{layers} layers, width {width}, {responses} responses of {length:,} tokens"
    facts = {"size": size, "rounds": rounds, "rows": [asdict(row) for row in rows]}
    temporary = _DATA.with_suffix(".partial")
    temporary.write_text(json.dumps(facts, indent=1) + "\n")
    temporary.replace(_DATA)
    write_section("credit-overhead", f"{size}; medians of {rounds} rounds.\n\n{table(rows)}")


if __name__ == "__main__":
    typer.run(main)
