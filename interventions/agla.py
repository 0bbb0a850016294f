"""`AGLA`: decoding by the logits of a picture and of its part that matters to the question."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from math import log
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.generate_wrapping import Generate, wrap_generate
from attnscope.interventions.seams import Seams
from attnscope.interventions.second_branch import SecondBranch

__all__ = ["AGLA", "assembled_logits"]


def assembled_logits(
    original: Float[Tensor, "*batch vocabulary"],
    masked: Float[Tensor, "*batch vocabulary"],
    alpha: float = 2.0,
    beta: float = 0.5,
) -> Float[Tensor, "*batch vocabulary"]:
    """Return `original + alpha masked` where `original >= max(original) + ln(beta)`, else -inf.

    A token stays if its probability is at least `beta` times the largest; with `beta` 0 all do.
    Where both branches agree the distribution becomes sharper, by a temperature of 1 / (1 + alpha).

    Raises:
        InterventionError: `beta` is not from 0 to 1.

    Reference: AGLA, arXiv 2406.12718, as its code computes it.

    Example:
        >>> import torch
        >>> assembled_logits(torch.tensor([2.0, 1.8, 0.0]), torch.tensor([0.0, 3.0, 0.0])).tolist()
        [2.0, 7.800000190734863, -inf]
    """
    if not 0 <= beta <= 1:
        raise InterventionError(f"beta is {beta}; it is a share of a probability, from 0 to 1")
    cut = original.amax(-1, keepdim=True) + (log(beta) if beta else -torch.inf)
    # a token that another processor forbade stays forbidden, whatever the second branch says
    out = (original < cut) | original.isneginf()
    return (original + alpha * masked).masked_fill(out, -torch.inf)


class AGLA:
    """Assembly of global and local attention: a logits processor of transformers' `generate`.

    Give it to `generate(logits_processor=[agla])`, or to `intervening(subject, agla)`, which does
    so; there the second branch runs without the other methods, whose state follows the first.
    Greedy, sampled or with beams, one prompt or a padded batch; each token costs one more step of
    the model. The scores are log-probabilities, which is what beams add up; greedy and sampled
    decoding do not depend on that constant. A repeated `generate` on the prompt begins anew.

    Args:
        model: A model that reads pictures.
        inputs: What `generate` is given.
        masked: The same prompt with the pictures that `mask_image` made.
        alpha: Weight of the masked picture's logits; 0 leaves the order of the tokens as it is.
        beta: Tokens of less than this share of the largest probability are out.

    Raises:
        InterventionError: The model takes no pictures, the inputs hold none, or a setting is off.

    Reference: AGLA, arXiv 2406.12718; alpha 2 and beta 0.5 are its evaluation's.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        masked: Mapping[str, Tensor],
        alpha: float = 2.0,
        beta: float = 0.5,
    ) -> None:
        if "pixel_values" not in masked:
            raise InterventionError(
                f"AGLA compares a picture with its masked copy; {type(model).__name__} was given "
                f"none, only {sorted(masked)}"
            )
        if "input_ids" not in inputs:
            raise InterventionError(f"AGLA needs the prompt's input_ids; got {sorted(inputs)}")
        assembled_logits(torch.zeros(1), torch.zeros(1), alpha, beta)
        self._branch = SecondBranch(model, inputs["input_ids"], masked)
        self._model, self._alpha, self._beta = model, alpha, beta
        self._alone: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __repr__(self) -> str:
        """Return the settings, which the provenance of traces holds."""
        return f"AGLA(alpha={self._alpha}, beta={self._beta})"

    def enter(self, seams: Seams) -> None:
        """Join the logits processors of `generate`.

        Raises:
            InterventionError: This was made for another model.
        """
        if seams.subject.model is not self._model:
            raise InterventionError(
                f"{self!r} was made for another {type(self._model).__name__} than it is given to"
            )
        self._alone = seams.unchanged
        seams.stack.callback(setattr, self, "_alone", nullcontext)
        wrap_generate(seams, self._joining)

    def _joining(self, generate: Generate) -> Generate:
        def assembling(*args: Any, **options: Any) -> Any:
            others = options.pop("logits_processor", None) or []
            return generate(*args, logits_processor=[*others, self], **options)

        return assembling

    def __call__(
        self, input_ids: Int[Tensor, "row token"], scores: Float[Tensor, "row vocabulary"]
    ) -> Float[Tensor, "row vocabulary"]:
        """Return log-probabilities of the next token from both branches."""
        with self._alone():
            masked = self._branch.logits(input_ids).to(scores)
        return assembled_logits(scores, masked, self._alpha, self._beta).log_softmax(-1)
