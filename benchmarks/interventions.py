"""What interventions add to a token that a model generates.

`python -m benchmarks.interventions` lets one model answer a prompt with 576 image tokens in all
ways, one after the other in every round, and writes processor time per token (the prompt left out)
and what an intervention adds to the prompt into a section of `RESULTS.md`.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from attnscope.interventions import (
    AGLA,
    PAINT,
    SGRS,
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
from benchmarks.results import write_section

_SIDE, _PATCH, _WORDS, _IMAGE = 24, 4, 64, 999

SIZES = ((512, 8), (2048, 4))
"""Width and layers of the models: one whose layers take no longer than Python, and one as wide as
the small language models in use."""


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


def ways(subject: Subject, prompt: Encoded) -> dict[str, Sequence[Intervention]]:
    """Return what is compared.

    Sinks are told by a bound that some tokens reach. AGLA's second picture has its upper half
    masked: what a matcher costs depends on the matcher, and is left out.
    """
    model: Any = subject.model
    width = model.config.text_config.hidden_size
    sinks = {"dimensions": range(0, width, 8), "tau": 2.5, "rho": 0.5, "least_mass": 0.2}
    whole = prompt.model_inputs
    pixels = whole["pixel_values"].clone()
    pixels[..., : pixels.shape[-2] // 2, :] = 0
    return {
        "plain": (),
        "one head scaled": (HeadScaling(heads=[0], factor=2.0),),
        "image cut from response": (EdgeKnockout(queries="response", keys="image"),),
        "LocoRE": (LocoRE(),),
        "LocoRE, rows renormalized": (LocoRE(normalize=post_softmax_renorm),),
        "VHR": (VHR(),),
        "VAR": (VAR(**sinks),),
        "PAINT": (PAINT(),),
        "AGLA": (AGLA(model, whole, dict(whole) | {"pixel_values": pixels}),),
        "SGRS": (SGRS(),),
    }


def measure(
    subject: Subject,
    prompt: Encoded,
    found: Mapping[str, Sequence[Intervention]],
    tokens: int,
    rounds: int,
) -> list[Row]:
    """Return the rows of all ways."""
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
    """Return the seconds until the first token is chosen, and those of each token after it."""
    model: Any = subject.model
    clock = [time.process_time()]

    def chosen(ids: Tensor, scores: Tensor) -> Tensor:
        clock.append(time.process_time())
        return torch.zeros(len(ids), dtype=torch.bool)

    with ExitStack() as stack:
        if interventions:  # VHR reads the prompt without its image here
            stack.enter_context(intervening(subject, *interventions, encoded=prompt))
        stack.enter_context(torch.no_grad())
        model.generate(
            **prompt.model_inputs,
            do_sample=False,
            max_new_tokens=tokens + 1,
            stopping_criteria=[chosen],
        )
    seconds = [after - before for before, after in pairwise(clock)]
    return seconds[0], median(seconds[1:])


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


def _drawn(interventions: Sequence[Intervention]) -> float:
    """Return how many candidates were drawn for a token, after the first one, in the last round."""
    steps = [step for one in interventions if isinstance(one, SGRS) for step in one.steps[1:]]
    return mean(float(step.tried.sum()) for step in steps)


def section(width: int, layers: int, tokens: int, rounds: int) -> str:
    """Return the table of a model of one size, and what was run."""
    subject, prompt = subject_and_prompt(width, layers)
    found = ways(subject, prompt)
    text = table(measure(subject, prompt, found, tokens, rounds))
    return (
        f"{layers} layers of width {width}, {_SIDE**2} image tokens and {_WORDS} words; medians of "
        f"{rounds} rounds of {tokens} tokens. SGRS drew {_drawn(found['SGRS']):.2f} candidates a "
        f"token.\n\n{text}"
    )


def main(
    width: Annotated[int | None, typer.Option(help="Width of the language model.")] = None,
    layers: Annotated[int | None, typer.Option(help="Its layers.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens that are generated.")] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 5,
) -> None:
    """Measure models of two sizes, and write the tables; a size of your own is printed."""
    torch.set_num_threads(1)
    if width is not None or layers is not None:
        print(section(width or SIZES[0][0], layers or SIZES[0][1], tokens, rounds))
        return
    parts = [section(*size, tokens, rounds) for size in SIZES]
    write_section("interventions", "\n\n".join(parts))


if __name__ == "__main__":
    typer.run(main)
