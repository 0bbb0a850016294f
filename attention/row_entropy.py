"""The entropy of rows: of those that are held as numbers, and of those held as factors."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.normalizer import Normalizer
from attnscope.attention.tile_statistics import row_moments, serves

__all__ = ["entropy_of", "entropy_of_scores"]


def entropy_of(rows: Float[Tensor, "*row key"]) -> Float[Tensor, "*row"]:
    """Return `-sum_j a_j log a_j` of each row, in nats; an entry of 0 adds nothing.

    Example:
        >>> entropy_of(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).exp().tolist()
        [1.0, 2.0]
    """
    # The logarithm's slope at 0 is infinite: a hidden key would turn every gradient into NaN.
    return -(rows * rows.clamp_min(torch.finfo(rows.dtype).tiny).log()).sum(-1)


def entropy_of_scores(normalizer: Normalizer) -> Float[Tensor, "batch head query"]:
    """Return `lse_t - scale q_t . (A K)_t`, the entropy of rows whose scores are products alone.

    One fused call with the keys as values, in 32 bits; on a GPU, where our own kernels serve, a
    pass over tiles of the factors as they are. NaN for a row without keys.
    """
    if serves(normalizer.scores):
        total = normalizer.kernel()
        entropy = row_moments(normalizer.scores, total).entropy
    else:
        scores = normalizer.scores.precise()
        mean_key, total = scores.attend(scores.key)
        entropy = total - (scores.query * mean_key).sum(-1) * scores.scale
    return entropy.clamp_min(0.0).masked_fill(total == -torch.inf, torch.nan)
