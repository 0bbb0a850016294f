"""`VHR`: vision-aware head reinforcement, which strengthens the heads that mind the image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.image_free import image_free_outputs
from attnscope.interventions.places import Layers, Place
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import Standing, prompt_length
from attnscope.metrics import (
    head_activation,
    vision_aware_heads,
    vision_head_divergence,
    zero_outliers,
)
from attnscope.probes.attention_call import AttentionCall
from attnscope.probes.image_removal import Removal, without_image

__all__ = ["VHR", "reinforced_heads", "reinforced_layers"]


def reinforced_layers(depth: int) -> list[int]:
    """Return the second layer and the last 14 of 32, the same share of any other depth.

    The paper names them for models of 32 layers; `round(14 depth / 32)` for others is ours.

    Reference: He et al. 2024, arXiv:2412.13949, section 4.4 and table 5.

    Example:
        >>> reinforced_layers(32)[:3], len(reinforced_layers(32)), reinforced_layers(4)
        ([1, 18, 19], 15, [1, 2, 3])
    """
    last = max(1, round(14 * depth / 32))
    return sorted({min(1, depth - 1), *range(depth - last, depth)})


def reinforced_heads(
    seen: Float[Tensor, "*batch head dim"],
    unseen: Float[Tensor, "*batch head dim"],
    *,
    removes_outliers: bool = True,
    squared: bool = True,
    sample_std: bool = False,
) -> Bool[Tensor, "*batch head"]:
    """Return the heads of one layer that are to be reinforced.

    Args:
        seen: Outputs z of the heads at the position that predicts the first token.
        unseen: The same without the image.
        removes_outliers: Leave out heads that surge when the image is taken away.
        squared: Whether TA is the square of the norm; see `head_activation`.
        sample_std: Which standard deviation the outliers are told by; see `zero_outliers`.

    Reference: He et al. 2024, arXiv:2412.13949, equations 4, 6 and 7.

    Example:
        >>> seen = torch.tensor([[5.0], [1.0], [2.0], [3.0]])
        >>> reinforced_heads(seen, torch.zeros(4, 1)).tolist()
        [True, False, False, True]
    """
    divergence = vision_head_divergence(seen, unseen)
    if removes_outliers:
        activation = head_activation(unseen, squared=squared)
        divergence = zero_outliers(divergence, activation, sample_std=sample_std)
    return vision_aware_heads(divergence)


@dataclass(frozen=True, slots=True, kw_only=True)
class VHR:
    """Multiplies the outputs z of the heads whose output changes most when the image is removed.

    The heads are chosen once, at the first generation step, layer after layer, earlier layers being
    reinforced by then. What they give without the image comes from one forward pass on the prompt
    without its image tokens, when the context is entered; that pass is not reinforced itself (our
    reading, as is dropping the tokens: the paper does not say how the image is removed).

    Attributes:
        alpha: Factor; 1 leaves the model as it is.
        layers: Which layers, see `reinforced_layers`; the last 18 for InstructBLIP.
        removes_outliers: Equation 6; off is an ablation of the paper's.
        squared: Whether TA is squared; see `head_activation`.
        sample_std: See `zero_outliers`.
        whole_prompt: Scale the heads at all queries of the prompt; by default at the one that
            predicts and at all after it (our reading).
        remove: Takes the picture out of the prompt; `without_image` drops its tokens.

    Reference: He et al. 2024, arXiv:2412.13949, algorithm 1 and section 4.4.
    """

    alpha: float = 2.0
    layers: Layers = reinforced_layers
    removes_outliers: bool = True
    squared: bool = True
    sample_std: bool = False
    whole_prompt: bool = False
    remove: Removal = without_image

    def enter(self, seams: Seams) -> None:
        """Run the prompt without its image, and reinforce what it shows to matter."""
        if self.alpha == 1:
            return
        seams.require_image("VHR")
        run = _Reinforcement(self, seams)
        seams.attention(run.change, self.layers)


class _Reinforcement:
    """The heads chosen for one input, or for one batch of them."""

    def __init__(self, settings: VHR, seams: Seams) -> None:
        layers = seams.places.resolved(settings.layers)
        self._settings = settings
        self._lengths = [prompt_length(sequence) for sequence in seams.sequences()]
        self._without = image_free_outputs(seams, layers, settings.remove)
        self._factors: dict[str, Float[Tensor, "row head 1 1"]] = {}

    def change(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        first = standing.known(("VHR", self), lambda: self._first_step(standing))
        if first is not None:
            self._factors[place.path] = self._chosen(call, place, first)
        factors = self._factors.get(place.path)
        if factors is None or len(factors) != standing.rows:
            return self._too_early(call, standing)
        scaled = call.output * factors
        if not self._settings.whole_prompt and standing.queries > 1:
            here = standing.predicting()[:, None, :, None]
            scaled = torch.where(here, scaled, call.output)
        return replace(call, output=scaled)

    def _too_early(self, call: AttentionCall, standing: Standing) -> AttentionCall:
        """Leave a first part of the prompt as it is, and refuse an answer to an unseen prompt."""
        if standing.known(("VHR answers", self), lambda: bool(standing.predicting().any())):
            raise InterventionError(
                f"VHR did not see the last token of these {standing.rows} prompts: read the prompt "
                "inside the context"
            )
        return call

    def _first_step(self, standing: Standing) -> list[int] | None:
        """Return which query of each row predicts the first token, if they are in this call."""
        lengths = self._of_rows(self._lengths, standing.rows)
        queries = [
            padding + length - 1 - standing.first_query
            for padding, length in zip(standing.padding, lengths, strict=True)
        ]
        return queries if all(0 <= query < standing.queries for query in queries) else None

    def _chosen(self, call: AttentionCall, place: Place, queries: list[int]) -> Tensor:
        rows = list(range(len(queries)))
        seen = call.output[rows, :, queries]
        unseen = torch.stack(self._of_rows(self._without[place.path], len(rows))).to(seen)
        settings = self._settings
        heads = reinforced_heads(
            seen,
            unseen,
            removes_outliers=settings.removes_outliers,
            squared=settings.squared,
            sample_std=settings.sample_std,
        )
        factors = torch.where(heads, settings.alpha, 1.0).to(call.output.dtype)
        return factors[:, :, None, None]

    def _of_rows(self, items: Sequence, rows: int) -> list:
        """Return each row's own: beams and drawn answers share that of their prompt."""
        return [items[row * len(items) // rows] for row in range(rows)]
