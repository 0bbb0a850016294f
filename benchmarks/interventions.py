"""What interventions add to a token that a model generates.

`python -m benchmarks.interventions` lets one model answer a prompt with 576 image tokens in all
ways, one after the other in every round, and prints processor time per token (the prompt left out)
and what an intervention adds to the prompt.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Annotated, Any

import torch
import typer

from attnscope.interventions import (
    PAINT,
    VAR,
    VHR,
    EdgeKnockout,
    HeadScaling,
    Intervention,
    LocoRE,
    intervening,
    post_softmax_renorm,
)
from attnscope.probes import Encoded, Subject
from benchmarks.results import machine

_SIDE, _PATCH, _WORDS, _IMAGE = 24, 4, 64, 999


@dataclass(frozen=True, slots=True)
class Row:
    """One way, as medians over the rounds: seconds, and times plain in the same round."""

    way: str
    token: float
    times: float
    prompt: float
    times_prompt: float


def subject_and_prompt(width: int, layers: int) -> tuple[Subject, Encoded]:
    """Return a LLaVA with random weights, and a prompt of 576 image tokens and 64 words."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    tower = {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": _SIDE * _PATCH,
        "patch_size": _PATCH,
    }
    text = {
        "model_type": "llama",
        "vocab_size": 1000,
        "hidden_size": width,
        "intermediate_size": 11 * width // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    image: dict[str, Any] = {"image_token_index": _IMAGE, "image_token_id": _IMAGE}
    config = LlavaConfig(vision_config=tower, text_config=text, **image)
    model = LlavaForConditionalGeneration(config).eval()
    ids = torch.randint(3, 990, (1, _SIDE**2 + _WORDS))
    ids[0, 8 : 8 + _SIDE**2] = _IMAGE
    size = _SIDE * _PATCH
    subject = Subject(model)
    return subject, subject.encode(
        {"input_ids": ids, "pixel_values": torch.randn(1, 3, size, size)}
    )


def ways(width: int) -> dict[str, Sequence[Intervention]]:
    """Return what is compared; sinks are told by a bound that some tokens reach."""
    sinks = {"dimensions": range(0, width, 8), "tau": 2.5, "rho": 0.5, "least_mass": 0.2}
    return {
        "plain": (),
        "one head scaled": (HeadScaling(heads=[0], factor=2.0),),
        "image cut from response": (EdgeKnockout(queries="response", keys="image"),),
        "LocoRE": (LocoRE(),),
        "LocoRE, rows renormalized": (LocoRE(normalize=post_softmax_renorm),),
        "VHR": (VHR(),),
        "VAR": (VAR(**sinks),),
        "PAINT": (PAINT(),),
    }


def measure(subject: Subject, prompt: Encoded, tokens: int, rounds: int) -> list[Row]:
    """Return the rows of all ways."""
    model: Any = subject.model
    width = model.config.text_config.hidden_size
    found = ways(width)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in found}
    for _ in range(rounds + 1):
        for way, interventions in found.items():
            times[way].append(_timed(subject, prompt, interventions, tokens))
    return [_row(way, _later(times)) for way in found]


def _later(times: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """Return what was measured after the first round, which warms caches."""
    return {way: measured[1:] for way, measured in times.items()}


def _timed(
    subject: Subject, prompt: Encoded, interventions: Sequence[Intervention], tokens: int
) -> tuple[float, float]:
    """Return seconds from the start to the second token's pass, and of each token from there."""
    model: Any = subject.model
    starts = [time.process_time()]
    with ExitStack() as stack:
        if interventions:
            stack.enter_context(intervening(subject, *interventions, encoded=prompt))
        clock = model.register_forward_pre_hook(lambda *_: starts.append(time.process_time()))
        stack.callback(clock.remove)
        stack.enter_context(torch.no_grad())
        model.generate(**prompt.model_inputs, do_sample=False, max_new_tokens=tokens + 2)
    # The image-free pass of VHR comes before the prompt's.
    passes = starts[-tokens - 1 :]
    steps = [after - before for before, after in pairwise(passes)]
    return passes[0] - starts[0], median(steps)


def _row(way: str, times: Mapping[str, list[tuple[float, float]]]) -> Row:
    own, plain = times[way], times["plain"]
    pairs = list(zip(own, plain, strict=True))
    return Row(
        way,
        median(token for _, token in own),
        median(mine[1] / beside[1] for mine, beside in pairs),
        median(first for first, _ in own),
        median(mine[0] / beside[0] for mine, beside in pairs),
    )


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| | ms per token | times plain | ms of the prompt | times plain |",
        "| --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        token, prompt = f"{1e3 * row.token:.1f}", f"{1e3 * row.prompt:.0f}"
        lines.append(
            f"| {row.way} | {token} | {row.times:.2f} | {prompt} | {row.times_prompt:.2f} |"
        )
    return "\n".join(lines)


def main(
    width: Annotated[int, typer.Option(help="Width of the language model.")] = 512,
    layers: Annotated[int, typer.Option(help="Its layers.")] = 8,
    tokens: Annotated[int, typer.Option(help="Tokens that are generated.")] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 5,
) -> None:
    """Measure, and print the table."""
    torch.set_num_threads(1)
    subject, prompt = subject_and_prompt(width, layers)
    print(table(measure(subject, prompt, tokens, rounds)))
    print(f"\n({machine()})")


if __name__ == "__main__":
    typer.run(main)
