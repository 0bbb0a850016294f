"""Whether numbers of a word tell an object that was made up from one that is there."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.app.answer_looks import token_measures
from attnscope.metrics import image_attention
from attnscope.models.subjects.glimpse import OBJECTS, Scene, present_objects, render
from attnscope.models.subjects.glimpse.tasks import DESCRIBE, question_chat
from attnscope.probes import Encoded, Subject, capture
from attnscope.traces import Trace
from benchmarks.resumed_lines import add_line, read_lines

__all__ = ["NUMBERS", "PLACES", "auroc", "auroc_interval", "measure_words"]

NUMBERS = {
    "vhd": "T-VHD",
    "saliency": "saliency of the token before",
    "image": "attention to the image",
}
"""What is measured of each word."""

PLACES = ("color", "shape")
"""The two words of an object's name."""

_DRAWS = 400


def measure_words(
    subject: Subject, scenes: Sequence[Scene], captions: Sequence[str], path: Path
) -> list[dict[str, Any]]:
    """Return the object words of each caption with their numbers; lines that are kept stay.

    T-VHD takes a quarter of the heads of each layer (ours; the paper prints no k), the saliency is
    a mean over layers, and the attention to the image one over layers and heads.
    """
    kept = {(entry["scene"], entry["caption"]): entry for entry in read_lines(path)}
    found = []
    for number, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
        if (scene.seed, caption) not in kept:
            entry = {
                "scene": scene.seed,
                "caption": caption,
                "words": _words(subject, scene, caption),
            }
            add_line(path, entry)
            kept[scene.seed, caption] = entry
        found.append(kept[scene.seed, caption] | {"number": number})
    return found


def _words(subject: Subject, scene: Scene, caption: str) -> list[dict[str, Any]]:
    said = caption.split()
    named = [place for place, pair in enumerate(pairwise(said)) if " ".join(pair) in OBJECTS]
    if not named:
        return []
    encoded = _encoded(subject, scene, caption)
    response = encoded.sequences["text"].segments["response"]
    tokens = [encoded.sequences["text"].tokens[place] for place in response]
    if tokens[: len(said)] != said:
        raise ValueError(f"the caption {said} was read as {tokens}")
    numbers = _numbers(subject, encoded)
    present = present_objects(scene)
    return [
        {
            "name": " ".join(said[place : place + 2]),
            "made_up": " ".join(said[place : place + 2]) not in present,
            **{
                word: {name: float(values[place + shift]) for name, values in numbers.items()}
                for shift, word in enumerate(PLACES)
            },
        }
        for place in named
    ]


def _encoded(subject: Subject, scene: Scene, caption: str) -> Encoded:
    asked = subject.processor.apply_chat_template(
        question_chat(DESCRIBE), add_generation_prompt=True
    )
    return subject.encode(asked, response=f" {caption}", images=[render(scene)])


def _numbers(subject: Subject, encoded: Encoded) -> dict[str, Float[Tensor, " token"]]:
    with torch.no_grad():
        trace: Trace = capture(subject, encoded)
    image = trace.segments["image"]
    rows = torch.tensor(trace.segments["response"]) - 1
    masses = [image_attention(one.attention, image)[:, rows] for one in trace.observe()]
    return token_measures(subject, encoded) | {"image": torch.stack(masses).mean((0, 1))}


def auroc(values: Float[Tensor, " word"], grounded: Bool[Tensor, " word"]) -> float:
    """Return how often a grounded word has the larger number, of pairs with a made-up one.

    Ties count half; NaN where there are no pairs. Words without a number are left out. It is 1 if
    the number tells all of them apart, as low where they are made up, and 0.5 if it tells nothing.

    Example:
        >>> auroc(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([True, True, False]))
        0.75
    """
    known = ~values.isnan()
    right, wrong = values[known & grounded], values[known & ~grounded]
    if not len(right) or not len(wrong):
        return float("nan")
    ordered = wrong.sort().values
    below = torch.searchsorted(ordered, right, right=False)
    reached = torch.searchsorted(ordered, right, right=True)
    return float((below + reached).double().mean() / (2 * len(wrong)))


def auroc_interval(
    entries: Sequence[Mapping[str, Any]], word: str, number: str
) -> tuple[float, float, float]:
    """Return AUROC with its 95 % bootstrap interval over captions."""
    values = [
        torch.tensor([one[word][number] for one in entry["words"]], dtype=torch.float64)
        for entry in entries
    ]
    grounded = [
        torch.tensor([not one["made_up"] for one in entry["words"]], dtype=torch.bool)
        for entry in entries
    ]
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(_DRAWS):
        chosen = torch.randint(len(entries), (len(entries),), generator=generator).tolist()
        drawn.append(
            auroc(
                torch.cat([values[place] for place in chosen]),
                torch.cat([grounded[place] for place in chosen]),
            )
        )
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.tensor(drawn, dtype=torch.float64).nanquantile(ends).tolist()
    return auroc(torch.cat(values), torch.cat(grounded)), low, high
