"""`look_at`: where a model looks at a picture with each token of its answer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.app.failures import CommandError
from attnscope.app.mention_tokens import Mention, mention_tokens
from attnscope.app.pictured_answers import PicturedPrompt
from attnscope.figures import PictureAnswer
from attnscope.interventions import Intervention, intervening
from attnscope.metrics import previous_token_keys
from attnscope.probes import (
    Encoded,
    Subject,
    capture,
    image_contrast,
    response_saliency,
    token_divergence,
)
from attnscope.traces import Trace

__all__ = [
    "MEASURES",
    "Looking",
    "check_heads",
    "look_at",
    "marked",
    "mentions_of",
    "seen_picture",
    "token_measures",
]

MEASURES = {
    "image": "attention to the image",
    "vhd": "T-VHD",
    "saliency": "saliency of the token before",
}
"""What is measured of each token, by its short name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """Whose attention is shown.

    Attributes:
        layers: Layers, negative ones from the end; None for all.
        heads: Heads of each of them; None for all.
    """

    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None


def check_heads(subject: Subject, looking: Looking) -> None:
    """Refuse layers and heads that the language model does not have.

    Raises:
        CommandError: Which ones, and how many there are.
    """
    config: Any = getattr(subject.model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for what, numbers, name in (
        ("layer", looking.layers, "num_hidden_layers"),
        ("head", looking.heads, "num_attention_heads"),
    ):
        count = getattr(text, name, None)
        outside = [n for n in numbers or () if count is not None and not -count <= n < count]
        if outside:
            raise CommandError(
                f"no {what} {outside[0]}; the language model of {subject.name} has {count}, "
                "counted from 0"
            )


def look_at(
    prompt: PicturedPrompt,
    answered: Encoded,
    interventions: Sequence[Intervention],
    looking: Looking,
) -> PictureAnswer | None:
    """Return what is to be drawn of an answer; None if it has no word.

    The attention is that of the model under the interventions, as means over layers and heads, at
    the position that predicts each token. T-VHD (k a quarter of the heads, ours: the paper prints
    none) and the saliency are of the plain model as it reads the answer, so that they compare.

    Args:
        prompt: What was asked.
        answered: Prompt and answer.
        interventions: The method under which it was given.
        looking: Layers and heads of the attention.
    """
    subject, sequence = prompt.subject, answered.sequences[answered.main_sequence]
    if "response" not in sequence.segments:
        return None
    with intervening(subject, *interventions, encoded=prompt.encoded), torch.no_grad():
        trace: Trace = capture(subject, answered, looking.layers)
    places = list(sequence.segments["response"])
    mass, cells = _attention(trace, places, looking.heads)
    measures = {"image": mass} | token_measures(subject, answered)
    return PictureAnswer(
        tokens=tuple(sequence.tokens[place] for place in places),
        cells=cells,
        measures={MEASURES[name]: values for name, values in measures.items()},
    )


def token_measures(subject: Subject, answered: Encoded) -> dict[str, Float[Tensor, " token"]]:
    """Return T-VHD and the saliency of the token before of each token, by short name.

    T-VHD takes a quarter of the heads of each layer (ours: the paper prints no k), the saliency is
    a mean over layers.
    """
    contrast = image_contrast(subject, answered).divergence
    heads = contrast.values.shape[contrast.axes.index("head")]
    reliance = token_divergence(contrast, k=max(1, heads // 4))
    before = response_saliency(subject, answered, keys=previous_token_keys)
    return {
        "vhd": reliance.values.float().cpu(),
        "saliency": before.values.float().nanmean(0).cpu(),
    }


def marked(
    look: PictureAnswer, mentions: Sequence[Mention], made_up: Collection[str]
) -> PictureAnswer:
    """Return an answer with the words marked that name something, there or made up."""
    places: dict[bool, set[int]] = {True: set(), False: set()}
    for mention in mentions:
        places[mention.name in made_up].update(range(mention.start, mention.stop))
    return replace(look, made_up=frozenset(places[True]), grounded=frozenset(places[False]))


def mentions_of(
    prompt: PicturedPrompt, answered: Encoded, names: Mapping[str, str]
) -> list[Mention]:
    """Return the objects that an answer mentions, with their places among its words."""
    sequence = answered.sequences[answered.main_sequence]
    if "response" not in sequence.segments or sequence.ids is None:
        return []
    ids = [sequence.ids[place] for place in sequence.segments["response"]]
    decode = prompt.subject.tokenizer.decode
    prefixes = [decode(ids[: stop + 1], skip_special_tokens=True) for stop in range(len(ids))]
    return mention_tokens(prefixes, names)


def seen_picture(prompt: PicturedPrompt) -> Any:
    """Return the picture as the model was given it, cut and scaled; the picture itself if unknown.

    Where patches are listed one by one the processor has cut nothing off.
    """
    from PIL import Image

    pixels = prompt.encoded.model_inputs.get("pixel_values")
    images = getattr(prompt.subject.processor, "image_processor", None)
    mean, spread = (getattr(images, name, None) for name in ("image_mean", "image_std"))
    if pixels is None or pixels.ndim < 4 or mean is None or spread is None:
        return prompt.picture
    first = pixels.float().cpu().flatten(0, -4)[0]  # of several tiles, the overview
    colors = first * torch.tensor(spread)[:, None, None] + torch.tensor(mean)[:, None, None]
    levels = (colors.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def _attention(
    trace: Trace, places: Sequence[int], heads: Sequence[int] | None
) -> tuple[Float[Tensor, " token"], Float[Tensor, "token row column"] | None]:
    """Return what each token's prediction gives to the image, in all and patch by patch."""
    image = list(trace.segments["image"])
    rows = [place - 1 for place in places]
    layers = []
    for observation in trace.observe():
        tile = observation.attention.tile(rows, image).float().cpu()
        layers.append(tile if heads is None else tile[list(heads)])
    weights = torch.stack([tile.mean(0) for tile in layers]).mean(0)
    run = next(run for run in trace.segments if run.name == "image")
    if run.grid is None:
        return weights.sum(-1), None
    first = weights[:, : run.stop - run.start]
    return weights.sum(-1), first.unflatten(-1, run.grid)
