"""`SGRS`: draw tokens until one does not neglect what was said before it (SGRS)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from attnscope.interventions.candidate_gradients import CandidateGradients, Keys
from attnscope.interventions.errors import InterventionError
from attnscope.interventions.generate_wrapping import wrap_generate
from attnscope.interventions.places import Layers
from attnscope.interventions.rejection_decoding import RejectionDecoding
from attnscope.interventions.rejection_step import RejectionStep
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import RESPONSE, Standing
from attnscope.metrics import NormScope

__all__ = ["SGRS", "after_image", "earlier_outputs", "saliency_layers"]

_PUBLISHED, _DEPTH = (6, 7, 8), 32


def saliency_layers(depth: int) -> list[int]:
    """Return the target layers of a model of some depth: the published 6, 7 and 8 of 32, scaled.

    `floor(layer depth / 32)`, each once; our reading for other depths.

    Example:
        >>> saliency_layers(32), saliency_layers(28), saliency_layers(2)
        ([6, 7, 8], [5, 6, 7], [0])
    """
    return sorted({layer * depth // _DEPTH for layer in _PUBLISHED})


def earlier_outputs(standing: Standing) -> Bool[Tensor, "row key"]:
    """Return the keys of the response so far."""
    return standing.keys_in(RESPONSE)


def after_image(standing: Standing) -> Bool[Tensor, "row key"]:
    """Return every key behind the image, the question's included, as the paper counts outputs."""
    return standing.keys_after("image")


@dataclass(slots=True, kw_only=True)
class SGRS:
    """Saliency-guided rejection sampling, for the time of an `intervening`.

    At each token but the first, up to `tries` of the `candidates` likeliest tokens are drawn
    without putting any back (likeliest first where `generate` does not sample). A candidate c
    passes if `S(c) >= alpha mean(recent S)`; if none does, the one with the highest S is taken.
    S is the mean over target layers and over earlier outputs of the head sum of `|A dL/dA|`,
    `L = -log p(c)`, on **the row of the query that predicts c**, the last position of the prefix.
    The published script reads the candidate's own row, which cannot reach its loss: all its scores
    are 0. A candidate costs a backward pass of one token from the logits to the first target layer.

    Give it last, behind methods that change attention: it then measures what the model goes on
    with. Padded batches and several drawn answers are served, each row for itself; beams are not.

    Attributes:
        alpha: Share of the recent mean to reach: 0.6 published; with 0 the first draw is taken.
        candidates: K; 5 in the published code.
        tries: R; 3 in the published code.
        window: Largest distance of a recent score; 5 in the published code.
        layers: Target layers; by default the published ones, scaled to the depth.
        keys: What counts as an earlier output: `earlier_outputs`, or `after_image` as in the paper.
        norm: Divide a layer's head sum by the norm of its row ("row", as the code does), of the
            whole map ("matrix", which needs `use_cache=False`), or not at all (None). Which norm
            the paper's equation 5 takes is not said there.
        steps: How each token of the last `generate` was chosen.

    Raises:
        InterventionError: A setting is off, or the model cannot be followed.

    Reference: Zhang et al. 2026, arXiv:2601.20279, equations 2 to 7 and algorithm 1.

    Example:
        `with intervening(subject, LocoRE(), SGRS(), encoded=prompt): ...` is the
        paper's whole method.
    """

    alpha: float = 0.6
    candidates: int = 5
    tries: int = 3
    window: int = 5
    layers: Layers = saliency_layers
    keys: Keys = earlier_outputs
    norm: NormScope = "row"
    steps: list[RejectionStep] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if self.alpha < 0 or min(self.candidates, self.tries) < 1 or self.window < 0:
            raise InterventionError(
                f"alpha ({self.alpha}) and window ({self.window}) are at least 0, candidates "
                f"({self.candidates}) and tries ({self.tries}) at least 1"
            )

    def enter(self, seams: Seams) -> None:
        """Hear the target layers, and decode by rejection."""
        if seams.subject.speaks_by_decoder:
            raise InterventionError(
                f"{type(seams.subject.model).__name__} reads with an encoder; rejection sampling "
                "follows decoders only"
            )
        seams.sequences()
        if self.keys is after_image:
            seams.require_image("after_image")
        gradients = CandidateGradients(self.keys, self.norm)
        seams.attention(gradients.hear, self.layers)
        decoding = RejectionDecoding(
            gradients=gradients,
            alpha=self.alpha,
            window=self.window,
            candidates=self.candidates,
            tries=self.tries,
            note=self.steps.append,
        )
        wrap_generate(seams, lambda generate: self._decoding(generate, decoding))

    def _decoding(self, generate: Callable[..., Any], decoding: RejectionDecoding) -> Any:
        def rejecting(*args: Any, **options: Any) -> Any:
            taken = ("assistant_model", "custom_generate", "streamer")
            asked = [name for name in taken if options.get(name) is not None]
            if asked:
                raise InterventionError(
                    f"rejection sampling chooses the tokens; generate() takes no {asked} with it"
                )
            self.steps.clear()
            return generate(*args, custom_generate=decoding, **options)

        return rejecting
