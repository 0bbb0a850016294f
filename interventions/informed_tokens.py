"""`PAINT`: paying attention to informed tokens, higher scores for two kinds of image tokens."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from attnscope.attention import AttentionOperator, SoftmaxAttention
from attnscope.interventions.errors import InterventionError
from attnscope.interventions.places import Layers, Place
from attnscope.interventions.row_change import chosen_queries, score_rows, with_rows
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import Standing
from attnscope.probes.attention_call import AttentionCall
from attnscope.traces import TokenSequence

__all__ = [
    "PAINT",
    "HeadGain",
    "PatchWeights",
    "class_row",
    "local_tokens",
    "mean_row",
    "painted_layers",
    "raised_scores",
    "summary_tokens",
]

PatchWeights = Callable[[AttentionOperator], Tensor]
"""Takes a vision layer's attention and returns how much each patch is looked at."""

HeadGain = Callable[[Tensor], Tensor]
"""Takes each head's attention to the image, `(row, head, query)`, and returns factors of gains."""


def painted_layers(depth: int) -> Iterable[int]:
    """Return layers 2 to 31 of 32, the same share of any other depth (`2 depth / 32`, ours).

    Example:
        >>> list(painted_layers(32))[:2], list(painted_layers(16))[:2]
        ([2, 3], [1, 2])
    """
    return range(round(2 * depth / 32), depth)


def class_row(attention: AttentionOperator) -> Float[Tensor, "picture patch"]:
    """Return the class token's row, summed over heads, without what it gives to itself.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[[0.5, 0.3, 0.2], [0, 1, 0], [0, 0, 1]]]]))
        >>> [round(x, 4) for x in class_row(A)[0].tolist()]
        [0.3, 0.2]
    """
    return attention.rows([0])[:, :, 0, 1:].sum(1)


def mean_row(attention: AttentionOperator) -> Float[Tensor, "picture patch"]:
    """Return what each patch gets from the mean of all rows, summed over heads.

    For vision towers without a class token; our option, the paper's model has one.
    """
    return (attention.column_mass() / attention.queries).sum(1)


def local_tokens(
    weights: Float[Tensor, "*picture patch"], share: float = 0.25
) -> Bool[Tensor, "*picture patch"]:
    """Return the patches that the first vision layer looks at most, a fixed share of them.

    Example:
        >>> local_tokens(torch.tensor([0.1, 0.4, 0.3, 0.2])).tolist()
        [False, True, False, False]
    """
    chosen = weights.topk(int(share * weights.shape[-1]), dim=-1).indices
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, chosen, True)


def summary_tokens(weights: Float[Tensor, "*picture patch"]) -> Bool[Tensor, "*picture patch"]:
    """Return the patches above the upper Tukey fence, ``Q3 + 1.5 (Q3 - Q1)``, strictly.

    Example:
        >>> summary_tokens(torch.tensor([1.0, 1.0, 1.0, 1.0, 10.0])).tolist()
        [False, False, False, False, True]
        >>> bool(summary_tokens(torch.ones(5)).any())
        False
    """
    low, high = weights.float().quantile(torch.tensor([0.25, 0.75], device=weights.device), dim=-1)
    return weights > (high + 1.5 * (high - low)).unsqueeze(-1)


def raised_scores(
    scores: Float[Tensor, "*axes key"], gains: Float[Tensor, "*#axes key"]
) -> Float[Tensor, "*axes key"]:
    """Return ``s + gain |s|``; hidden keys stay hidden.

    Example:
        >>> raised_scores(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5] * 3)).tolist()
        [1.5, -1.0, 4.5]
    """
    return scores + gains * scores.abs().masked_fill(scores == -torch.inf, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PAINT:
    """Raises the scores of local and summary image tokens, at the queries that predict.

    Local tokens: the quarter of the patches that the class token of the first vision layer looks at
    most. Summary tokens: those above the Tukey fence of its row in the second to last vision layer;
    they are no local tokens. Before the softmax ``s`` becomes ``s + alpha |s|`` at local and
    ``s + beta |s|`` at summary tokens, in all heads. The paper's spatial tokens are left out: the
    published code ranks them by sums that are all 1.

    Attributes:
        alpha: Gain of local tokens; the code's 0.7.
        beta: Gain of summary tokens; the code's 0.3 (0.4 is the best row of the table).
        local_share: Share of local tokens.
        layers: Layers 2 to 31 of 32, see `painted_layers`.
        patch_weights: How much each patch is looked at: `class_row`, or `mean_row` for vision
            towers without a class token (our option).
        head_gain: Factor of both gains for each head, by its attention to the image; None for 1.
            Version 1 of the paper announces such a thing without a formula: this is ours.

    Reference: arXiv:2501.12206; formulas read in the published code.
    """

    alpha: float = 0.7
    beta: float = 0.3
    local_share: float = 0.25
    layers: Layers = painted_layers
    patch_weights: PatchWeights = class_row
    head_gain: HeadGain | None = None

    def enter(self, seams: Seams) -> None:
        """Watch two layers of the vision tower, and raise what they point at."""
        if self.alpha == 0 and self.beta == 0:
            return
        seams.require_image("PAINT")
        towers = seams.places.stacks(lambda place: place.sees)
        if not towers:
            raise InterventionError("PAINT needs a vision tower, and this model has none")
        tower = max(towers, key=lambda stack: towers[stack])
        run = _Painting(self, [tuple(_pictures(each)) for each in seams.sequences()])
        seams.attention(run.watch_local, [0], tower)
        seams.attention(run.watch_summary, [-min(2, towers[tower])], tower)
        seams.attention(run.change, self.layers)


class _Painting:
    """The tokens picked out of the pictures of one run."""

    def __init__(self, settings: PAINT, pictures: list[tuple[range, ...]]) -> None:
        self._settings, self._pictures = settings, pictures
        self._local: Bool[Tensor, "picture patch"] | None = None
        self._summary: Bool[Tensor, "picture patch"] | None = None
        self._gains: Float[Tensor, "row column"] | None = None

    def watch_local(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        weights = self._settings.patch_weights(call.attention)
        self._local, self._gains = local_tokens(weights, self._settings.local_share), None
        return call

    def watch_summary(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        self._summary = summary_tokens(self._settings.patch_weights(call.attention))
        return call

    def change(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        chosen = chosen_queries(standing, "predicting", standing.predicting)
        if not chosen.numbers:
            return call
        attention = call.attention
        if not isinstance(attention, SoftmaxAttention):
            raise InterventionError(
                f"PAINT changes scores before the softmax, and layer {place.layer} has "
                f"{type(attention).__name__}; put PAINT before interventions that change rows"
            )
        gains = standing.known(("PAINT", self), lambda: self._at(standing))
        scores = score_rows(attention, chosen)
        if self._settings.head_gain is not None:
            image = standing.keys_in("image")[:, None, None]
            mass = (_softmax(scores, attention) * image).sum(-1)
            gains = gains * self._settings.head_gain(mass).unsqueeze(-1)
        rows = _softmax(raised_scores(scores, gains), attention)
        return with_rows(call, chosen, rows, stochastic=True)

    def _at(self, standing: Standing) -> Float[Tensor, "row 1 1 key"]:
        """Return the gain of each key."""
        if self._gains is None or len(self._gains) != standing.rows:
            self._gains = self._of_rows(standing)
        stop = standing.first_key + standing.keys
        gains = pad(self._gains, (0, max(0, stop - self._gains.shape[1])))
        return gains[:, None, None, standing.first_key : stop]

    def _of_rows(self, standing: Standing) -> Float[Tensor, "row column"]:
        if self._local is None or self._summary is None:
            raise InterventionError(
                "the vision tower did not run inside the context, so PAINT does not know the image"
            )
        local = self._local & ~self._summary
        weights = local * self._settings.alpha + self._summary * self._settings.beta
        owners = [row * len(self._pictures) // standing.rows for row in range(standing.rows)]
        spans = [(row, span) for row, owner in enumerate(owners) for span in self._pictures[owner]]
        every = [(item, span) for item, spans in enumerate(self._pictures) for span in spans]
        if len(weights) == len(every) != len(spans):  # rows of one input share its pictures
            number = {place: index for index, place in enumerate(every)}
            weights = weights[[number[owners[row], span] for row, span in spans]]
        if len(weights) != len(spans) or {len(span) for _, span in spans} != {weights.shape[1]}:
            raise InterventionError(
                f"the vision tower gave weights of shape {tuple(weights.shape)} (picture, patch) "
                f"for pictures of {[len(span) for _, span in every]} tokens: PAINT needs one token "
                "for each patch, and a class token unless patch_weights=mean_row"
            )
        last = max(standing.padding[row] + span.stop for row, span in spans)
        gains = weights.new_zeros(standing.rows, last)
        for own, (row, span) in zip(weights, spans, strict=True):
            start = standing.padding[row] + span.start
            gains[row, start : start + len(span)] = own
        return gains


def _pictures(sequence: TokenSequence) -> Iterable[range]:
    return (run.positions for run in sequence.segments if run.name == "image")


def _softmax(
    scores: Float[Tensor, "row head chosen key"], attention: SoftmaxAttention
) -> Float[Tensor, "row head chosen key"]:
    """Return the softmax of whole rows, a learned sink included; a row without keys is zeros."""
    if attention.sinks is None:
        return scores.softmax(-1).nan_to_num(0.0)
    sinks = attention.sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
    return torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1]
