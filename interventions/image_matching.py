"""`match_image`: which patches of a picture a matcher finds in a text, and how well the two fit."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.interventions.errors import InterventionError
from attnscope.probes import Subject

__all__ = [
    "ImageMatch",
    "Similarity",
    "contrastive_similarity",
    "match_image",
    "match_probability",
    "patch_relevance",
]

Similarity = Callable[[Any, Mapping[str, Tensor]], float]
"""Takes a matching model and its inputs, and returns how well picture and text fit."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageMatch:
    """How a matcher sees a picture and a text.

    Attributes:
        relevance: Relevance of each patch to the text, 0 or more, in units of the matching logit.
        similarity: How well they fit: a cosine, or whatever the similarity that was asked for is.
        side: Side of the square, in pixels, that the matcher saw the picture as.
    """

    relevance: Float[Tensor, "row column"]
    similarity: float
    side: int


def patch_relevance(
    pattern: Float[Tensor, "head token patch"], gradient: Float[Tensor, "head token patch"]
) -> Float[Tensor, " patch"]:
    """Return `1/n sum_i 1/H sum_h C max(0, dL/dC)`, the GradCAM of a cross-attention C.

    AGLA (arXiv 2406.12718), as its code computes it. A patch without attention or without a
    positive gradient has 0.

    Example:
        >>> import torch
        >>> pattern, gradient = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, -1.0]]])
        >>> patch_relevance(pattern, gradient).tolist()
        [0.5, 0.0]
    """
    return (pattern * gradient.clamp_min(0)).mean(dim=(0, 1))


@torch.no_grad()
def contrastive_similarity(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """Return the cosine of the picture's and the text's own embeddings (ITC), from -1 to 1."""
    return float(model(**inputs, use_itm_head=False).itm_score[0, 0])


@torch.no_grad()
def match_probability(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """Return the probability that they match (ITM), from 0 to 1: one number for both uses."""
    return float(model(**inputs).itm_score[0].softmax(-1)[1])


def match_image(
    matcher: Subject,
    image: Any,
    text: str,
    *,
    block: int | None = None,
    similarity: Similarity = contrastive_similarity,
) -> ImageMatch:
    """Return which patches of a picture matter to a text, and how well the two fit.

    The matching logit is differentiated by the cross-attention of one text block, the classifier
    and separator tokens left out; the similarity is another number of the same model, the cosine of
    the two embeddings, because the published code does so. The gradient comes from its factors,
    `dL/dC = dL/dz v`, so that neither parameters nor the picture's tower are differentiated.
    (Captum's LayerGradCam is another formula: it averages gradients over positions first.)

    Args:
        matcher: `BlipForImageTextRetrieval` with its processor.
        image: The picture, as its processor takes it.
        text: The question.
        block: Number of the text block; by default the one half way up, which is the published 6
            of 12, of two the first. Not the last one: only its first token reaches the logit.
        similarity: What tells how well they fit.

    Raises:
        InterventionError: This is no matcher, its processor does not fit it, or the text is empty.
    """
    model = _checked_model(matcher)
    attention = _cross_attention(model, block)
    inputs = _encoded(matcher, image, text)
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        model.eval()
        fit = similarity(model, inputs)
        pattern, value, output, logit = _matched(model, attention, inputs)
    (slope,) = torch.autograd.grad(logit, output)
    heads = pattern.shape[0]
    slope, value = (_by_head(tensor[0], heads) for tensor in (slope, value))
    inner = slice(1, int(inputs["attention_mask"].sum()) - 1)
    relevance = patch_relevance(
        pattern[:, inner, 1:].float(), (slope[:, inner] @ value[:, 1:].mT).float()
    )
    vision = model.config.vision_config
    rows = vision.image_size // vision.patch_size
    return ImageMatch(relevance.reshape(rows, -1), fit, vision.image_size)


def _matched(
    model: Any, attention: Any, inputs: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the map, the values, the heads' outputs as a leaf, and the logit that it matches."""
    values: list[Tensor] = []
    heard: list[tuple[Tensor, Tensor]] = []

    def as_leaf(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> Any:
        leaf = output[0].detach().requires_grad_()
        heard.append((output[1].detach()[0], leaf))
        return leaf, *output[1:]

    with ExitStack() as stack:
        note = attention.value.register_forward_hook(
            lambda module, args, output: values.append(output.detach())
        )
        stack.callback(note.remove)
        stack.callback(attention.register_forward_hook(as_leaf).remove)
        stack.enter_context(torch.enable_grad())
        logit = model(**inputs).itm_score[0, 1]
    return heard[0][0], values[0], heard[0][1], logit


def _by_head(states: Tensor, heads: int) -> Tensor:
    return states.unflatten(-1, (heads, -1)).transpose(0, 1)


def _checked_model(matcher: Subject) -> Any:
    model: Any = matcher.model
    if not hasattr(model, "itm_head") or not hasattr(model, "text_encoder"):
        raise InterventionError(
            f"{type(model).__name__} matches no pictures with texts; give a "
            "BlipForImageTextRetrieval with its processor as Subject(model, processor)"
        )
    if matcher.processor is None:
        raise InterventionError("the matcher needs its processor: Subject(model, processor)")
    return model


def _cross_attention(model: Any, block: int | None) -> Any:
    layers = model.text_encoder.encoder.layer
    depth = len(layers)
    number = min(depth // 2, depth - 2) if block is None else block
    number += depth if block is not None and block < 0 else 0
    if not 0 <= number < depth - 1:
        raise InterventionError(
            f"no gradient of words in text block {number}: the matcher has {depth}, and in the "
            f"last one only the first token reaches the matching logit; take 0 to {depth - 2}"
        )
    return layers[number].crossattention.self


def _encoded(matcher: Subject, image: Any, text: str) -> dict[str, Tensor]:
    model: Any = matcher.model
    given = matcher.processor(images=image, text=text, return_tensors="pt")
    kept = ("pixel_values", "input_ids", "attention_mask")
    inputs = {name: given[name].to(matcher.device) for name in kept}
    side, words = model.config.vision_config.image_size, model.config.text_config.vocab_size
    if tuple(inputs["pixel_values"].shape[-2:]) != (side, side):
        raise InterventionError(
            f"the processor makes pictures of {tuple(inputs['pixel_values'].shape[-2:])} pixels; "
            f"{type(model).__name__} takes {(side, side)}"
        )
    if int(inputs["input_ids"].max()) >= words:
        raise InterventionError(
            f"the processor gives token {int(inputs['input_ids'].max())}; the matcher knows {words}"
        )
    if int(inputs["attention_mask"].sum()) < 3:
        raise InterventionError(f"there is no token to match in the text {text!r}")
    inputs["pixel_values"] = inputs["pixel_values"].to(next(model.parameters()).dtype)
    return inputs
