"""What is done to the weights of a response in the end: nothing, or a mean of one."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Normalization", "mean_one", "unnormalized"]

Normalization = Callable[[Tensor, Tensor], Tensor]
"""Maps weights and the mask of tokens, both `(batch, response)`, to weights."""


def unnormalized(
    weights: Float[Tensor, "batch response"], mask: Bool[Tensor, "batch response"]
) -> Float[Tensor, "batch response"]:
    """Return the weights as they are, as the preplan-and-anchor paper uses them."""
    return weights


def mean_one(
    weights: Float[Tensor, "batch response"], mask: Bool[Tensor, "batch response"]
) -> Float[Tensor, "batch response"]:
    """Return the weights divided by their mean over the response, which keeps its whole weight.

    Our option, not the paper's. A response whose weights sum to 0 is left alone.

    Example:
        >>> weights, mask = torch.tensor([[3.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])
        >>> mean_one(weights, mask)[mask].tolist()
        [1.5, 0.5]
    """
    total = torch.where(mask, weights, 0).sum(-1, keepdim=True)
    return torch.where(total > 0, weights * mask.sum(-1, keepdim=True) / total, weights)
