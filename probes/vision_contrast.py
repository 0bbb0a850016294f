"""`image_contrast`: one response read twice, with the picture and without, head by head."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnscope.metrics import (
    Metric,
    MetricError,
    Reading,
    head_activation,
    head_outputs,
    token_vhd,
    vision_aware_heads,
    vision_head_divergence,
    zero_outliers,
)
from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.image_removal import Removal, without_image
from attnscope.probes.recorder import capture
from attnscope.probes.streaming import Measuring
from attnscope.probes.subject import Inputs, Subject
from attnscope.probes.token_targets import response_tokens
from attnscope.traces import Observation

__all__ = ["ImageContrast", "image_contrast"]

_PAPER = "He et al. 2024, arXiv:2412.13949"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageContrast:
    """By how much the picture changes the heads' outputs where each token is predicted.

    Attributes:
        divergence: VHD, with the axes layer, head and token.
        activation: The norm of the outputs without the picture, with the same axes.
    """

    divergence: Reading
    activation: Reading

    def without_outliers(self, *, squared: bool = True, sample_std: bool = False) -> Reading:
        """Return VHD with 0 for heads that surge without the picture; see `zero_outliers`.

        Args:
            squared: Compare the squares of the activations, as the paper prints.
            sample_std: Divide by n - 1 in the standard deviation.
        """
        activation = self.activation.values.square() if squared else self.activation.values
        zeroed = zero_outliers(self.divergence.values.mT, activation.mT, sample_std=sample_std).mT
        return replace(
            self.divergence,
            values=zeroed,
            paper=f"{_PAPER}, equation 6",
            options={**self.divergence.options, "squared": squared, "sample_std": sample_std},
        )


def image_contrast(
    subject: Subject,
    inputs: Inputs,
    layers: Sequence[int] | None = None,
    removal: Removal = without_image,
) -> ImageContrast:
    """Return VHD of every head for every token of a response, from two teacher-forced passes.

    The response is the same in both; only what is before it differs. `heads_by_vision` and
    `token_divergence` go on from here.

    Args:
        subject: The model.
        inputs: Picture, question and response, with the segments `image` and `response`.
        layers: Layers to record; by default all.
        removal: How the picture is taken away: `without_image` drops its tokens,
            `with_blank_image` and `with_noise_image` repaint it.

    Raises:
        CaptureError: There is no picture or no response, or the removal changed the response.

    Reference: He et al. 2024, arXiv:2412.13949, equation 4.
    """
    encoded = subject.encode(inputs)
    if encoded.main_sequence not in encoded.sequences:
        raise CaptureError("an image contrast needs a response; these inputs have no tokens")
    removed = removal(subject, encoded)
    tokens, left = _response(encoded), _response(removed)
    if tokens[1] != left[1]:
        raise CaptureError(
            f"the response changed from {tokens[1]} to {left[1]} as the picture was removed"
        )
    seen = _outputs(subject, encoded, layers, tokens[0])
    unseen = _outputs(subject, removed, layers, left[0])
    sequence = encoded.sequences[encoded.main_sequence]
    divergence = replace(
        seen,
        name="vision_head_divergence",
        title="Vision-aware head divergence",
        values=vision_head_divergence(seen.values, unseen.values),
        axes=("layer", "head", "token"),
        bounds=(0.0, None),
        paper=f"{_PAPER}, equation 4",
        coordinates={
            "layer": seen.coordinates["layer"],
            "head": seen.coordinates["head"],
            "token": tuple(sequence.tokens[token] for token in tokens[0]),
        },
        positions={"token": tokens[0]},
        options={"removal": getattr(removal, "__name__", repr(removal))},
    )
    activation = replace(
        divergence,
        name="activation_without_image",
        title="Head output without the image",
        values=head_activation(unseen.values, squared=False),
        paper=f"{_PAPER}, equation 6",
    )
    return ImageContrast(divergence=divergence, activation=activation)


def token_divergence(divergence: Reading, *, k: int) -> Reading:
    """Return T-VHD, how much each token relies on the picture, of a reading of VHD.

    Args:
        divergence: VHD with the axes layer, head and token.
        k: Heads of each layer that count; the paper does not print its own.

    Raises:
        MetricError: `k` is not from 1 to the number of heads, or the reading has other axes.

    Reference: He et al. 2024, arXiv:2412.13949, equation 5.
    """
    values = token_vhd(_by_token(divergence), k=k)
    return replace(
        divergence,
        name="token_vhd",
        title="Reliance on the image",
        values=values,
        axes=("token",),
        coordinates={"token": divergence.coordinates["token"]},
        paper=f"{_PAPER}, equation 5",
        options={**divergence.options, "k": k},
    )


def heads_by_vision(divergence: Reading) -> Reading:
    """Return 1 for the heads of each layer that mind the picture most, of a reading of VHD.

    Raises:
        MetricError: The reading has other axes than layer, head and token.

    Reference: He et al. 2024, arXiv:2412.13949, equation 7.
    """
    chosen = vision_aware_heads(_by_token(divergence)).movedim(0, -1)
    return replace(
        divergence,
        name="vision_aware_head",
        title="Vision-aware heads",
        values=chosen.float(),
        bounds=(0.0, 1.0),
        paper=f"{_PAPER}, equation 7",
    )


def _by_token(divergence: Reading) -> Tensor:
    if divergence.axes != ("layer", "head", "token"):
        raise MetricError(
            f"VHD has the axes layer, head and token; {divergence.name} has {divergence.axes}"
        )
    return divergence.values.movedim(-1, 0)


def _response(encoded: Encoded) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    sequence = encoded.sequences[encoded.main_sequence]
    tokens = response_tokens(sequence)
    ids = sequence.ids
    return tokens, None if ids is None else tuple(ids[token] for token in tokens)


def _output_of(observation: Observation, queries: tuple[int, ...] = ()) -> Tensor:
    if observation.value is None:
        raise MetricError(f"no values were captured at {observation.site.path}")
    return head_outputs(observation.attention, observation.value, queries)


_OUTPUT = Metric(
    name="head_output",
    title="Head output",
    axes=("layer", "head", "token", "dim"),
    needs=("value",),
    paper="our own measure",
    measure=_output_of,
    options={"queries": ()},
)


def _outputs(
    subject: Subject, encoded: Encoded, layers: Sequence[int] | None, tokens: tuple[int, ...]
) -> Reading:
    """Return what the heads read where each token is predicted, streamed."""
    queries = tuple(token - 1 for token in tokens)
    measuring = Measuring(_OUTPUT, options={"head_output": {"queries": queries}})
    with torch.no_grad():
        return capture(subject, encoded, layers, into=measuring)["head_output"]
