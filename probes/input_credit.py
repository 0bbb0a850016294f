"""Credit of tokens that is found by changing the input, with captum's methods."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.probes.errors import CaptureError
from attnscope.probes.presence import TokenPresence

__all__ = ["completeness_gap", "feature_ablation", "integrated_gradients", "occlusion"]


def integrated_gradients(presence: TokenPresence, *, steps: int = 50) -> Float[Tensor, " token"]:
    """Return the integral of the gradient by each token, from baseline to input.

    The credits sum to the target of the input minus that of the baseline, as far as the steps are
    fine enough and the model is continuous in between: `completeness_gap` tells. Summed over the
    entries of an embedding they are those of integrated gradients on embeddings, because all
    entries of a token move together along the same line.

    Reference: Sundararajan et al. 2017, arXiv:1703.01365, by captum.
    """
    from captum.attr import IntegratedGradients

    whole = presence.whole
    found = IntegratedGradients(presence, multiply_by_inputs=True).attribute(
        whole, baselines=torch.zeros_like(whole), n_steps=steps, internal_batch_size=1
    )
    return found[0].detach()


def completeness_gap(presence: TokenPresence, credit: Float[Tensor, " token"]) -> float:
    """Return what the credits sum to, minus the fall of the target from input to baseline.

    0 for exact integrated gradients. A gap as large as the fall says that the steps missed where
    the target changes: take more steps, or a token as the baseline.

    Reference: Sundararajan et al. 2017, arXiv:1703.01365, the axiom of completeness.
    """
    with torch.no_grad():
        whole, none = presence(torch.cat([presence.whole, 0 * presence.whole]))
    return float(credit.nansum()) - float(whole - none)


def feature_ablation(
    presence: TokenPresence, *, groups: tuple[int, ...] | None = None
) -> Float[Tensor, " token"]:
    """Return the fall of the target when each token is taken away alone.

    With `groups`, a number for each token, tokens of one number go together and bear one credit.

    Reference: captum's feature ablation.
    """
    from captum.attr import FeatureAblation

    whole = presence.whole
    mask = torch.arange(whole.shape[-1]) if groups is None else torch.tensor(groups)
    if mask.shape != whole.shape[1:]:
        raise CaptureError(f"{len(mask)} groups for {whole.shape[-1]} tokens")
    with torch.no_grad():
        found = FeatureAblation(presence).attribute(
            whole,
            baselines=torch.zeros_like(whole),
            feature_mask=mask[None].to(whole.device),
        )
    return found[0]


def occlusion(
    presence: TokenPresence, *, window: int = 1, stride: int = 1
) -> Float[Tensor, " token"]:
    """Return the mean fall of the target over the windows of tokens that cover a token.

    Reference: Zeiler and Fergus 2014, arXiv:1311.2901, along the sequence, by captum.
    """
    from captum.attr import Occlusion

    whole = presence.whole
    if not 1 <= stride <= window <= whole.shape[-1]:
        raise CaptureError(
            f"occlusion needs 1 <= stride <= window <= {whole.shape[-1]} tokens; got window "
            f"{window}, stride {stride}"
        )
    with torch.no_grad():
        found = Occlusion(presence).attribute(
            whole,
            sliding_window_shapes=(window,),
            strides=(stride,),
            baselines=torch.zeros_like(whole),
        )
    return found[0]
