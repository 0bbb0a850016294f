"""`LOOKS`: what a trace tells of where a token's prediction looks in a picture, one map each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.figures import HeadName
from attnscope.metrics import MetricError, measure, trace_relevance
from attnscope.traces import Segment, Trace

__all__ = ["LOOKS", "Look", "Place", "answer_places", "picture_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A token and a picture of a trace.

    Attributes:
        token: The place of the token in the main sequence.
        run: The positions of the picture.
        head: Whose attention; None for the mean of all layers and heads.
    """

    token: int
    run: Segment
    head: HeadName | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of patches; one row where the trace knows no grid."""
        return self.run.grid or (1, len(self.run.positions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A map of the patches.

    Attributes:
        title: What it is called.
        label: What the colors stand for.
        means: What it tells, in a sentence.
        measure: Returns a number per patch, in the order of the patches.
        of_token: Whether it differs from token to token.
    """

    title: str
    label: str
    means: str
    measure: Callable[[Trace, Place], Float[Tensor, " patch"]]
    of_token: bool = True


def picture_run(trace: Trace) -> Segment:
    """Return the first picture of the sequence that a trace's model speaks.

    Raises:
        MetricError: There is none.
    """
    for run in trace.segments:
        if run.name == "image":
            return run
    raise MetricError(
        f"no picture in this trace: its segments are {', '.join(trace.segments.names) or 'none'}; "
        "capture a scene below, or open a trace of a model that sees"
    )


def answer_places(trace: Trace) -> list[int]:
    """Return the places of the response's tokens; of all after the picture where there is none."""
    if "response" in trace.segments:
        return trace.segments["response"]
    return list(range(picture_run(trace).stop + 1, len(trace.tokens)))


def attention_to_patches(trace: Trace, place: Place) -> Float[Tensor, " patch"]:
    """Return what the query that predicts the token gives to each patch."""
    rows, keys = [place.token - 1], list(place.run.positions)
    if place.head is not None:
        operator = trace.attention[trace.main_stack, place.head.layer]
        return operator.tile(rows, keys)[place.head.head, 0].float()
    tiles = [
        seen.attention.tile(rows, keys).float().mean((0, 1))
        for seen in trace.observe(trace.main_stack)
    ]
    return torch.stack(tiles).mean(0)


def _saliency(trace: Trace, place: Place) -> Float[Tensor, " patch"]:
    """Return attention times gradient of the same query, mean over layers."""
    found = measure(trace, "saliency", stack=trace.main_stack, query=place.token - 1).values
    patches = found[:, list(place.run.positions)].float().nanmean(0)
    if bool(patches.isnan().all()):
        raise MetricError(
            "the gradients of this trace are 0 where this token is predicted: its target, "
            f"{trace.provenance.gradient_target}, lies before it"
        )
    return patches


def _relevance(trace: Trace, place: Place) -> Float[Tensor, " patch"]:
    """Return Chefer's relevance of each patch for the same query."""
    target = trace.provenance.gradient_target or ""
    if target.startswith("loss"):
        raise MetricError(
            f"relevance takes the gradient of a logit; this trace's is of the {target}"
        )
    found = trace_relevance(trace, query=place.token - 1)[trace.main_sequence]
    return found.values[list(place.run.positions)].float()


def _sinks(trace: Trace, place: Place) -> Float[Tensor, " patch"]:
    """Return the largest sink dimension value of each patch over the layers, of all dimensions."""
    values = measure(trace, "sink_dimension_value", stack=trace.main_stack).values
    return values[:, list(place.run.positions)].float().amax(0)


LOOKS: Mapping[str, Look] = {
    "attention": Look(
        title="Attention mass",
        label="share",
        means="What the query that predicts the token gives to each patch.",
        measure=attention_to_patches,
    ),
    "saliency": Look(
        title="Saliency",
        label="of a row of length 1",
        means="Attention times gradient of the same query, mean over layers.",
        measure=_saliency,
    ),
    "relevance": Look(
        title="Chefer relevance",
        label="relevance",
        means="Positive attention times gradient, followed through all layers.",
        measure=_relevance,
    ),
    "sinks": Look(
        title="Visual sinks",
        label="largest entry over RMS",
        means=(
            "How much one entry of the patch's hidden state stands out, at most over the layers, "
            "whatever the token. Sinks reach 20 at a width of 4,096; the root of the width is the "
            "most there can be."
        ),
        measure=_sinks,
        of_token=False,
    ),
}
"""The maps that stand side by side, by name."""
