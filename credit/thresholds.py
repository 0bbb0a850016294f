"""What coupled credit leaves open: thresholds, and which token introduces an anchor."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "FixedThreshold",
    "Introduction",
    "Threshold",
    "largest_change",
    "nearest_change",
    "response_median",
]

Threshold = Callable[[Tensor], Tensor]
"""Maps the values of the tokens, `(batch, response)` with NaN, to one number per response."""

Introduction = Callable[[Tensor, Tensor], Tensor]
"""Maps the changes before each token, `(batch, response, look_back)` with the nearest first, and
the least change `(batch, 1)` to the place of the introductory token along the last axis."""


def response_median(values: Float[Tensor, "batch response"]) -> Float[Tensor, "batch 1"]:
    """Return the median of each response's defined values, the lower one of two; NaN without any.

    Example:
        >>> response_median(torch.tensor([[3.0, 1.0, torch.nan, 2.0]])).tolist()
        [[2.0]]
    """
    if values.shape[-1] == 0:
        return values.new_full((len(values), 1), torch.nan)
    return values.nanmedian(dim=-1, keepdim=True).values


@dataclass(frozen=True, slots=True)
class FixedThreshold:
    """The same threshold for all responses.

    Attributes:
        value: The threshold.
    """

    value: float

    def __call__(self, values: Float[Tensor, "batch response"]) -> Float[Tensor, "batch 1"]:
        """Return the value for each response."""
        return values.new_full((len(values), 1), self.value)


def largest_change(
    before: Float[Tensor, "batch response look_back"], least: Float[Tensor, "batch 1"]
) -> Int[Tensor, "batch response"]:
    """Return the place of the largest change, the nearest one among equals.

    Example:
        >>> largest_change(torch.tensor([[[1.0, 3.0, 3.0]]]), torch.zeros(1, 1)).tolist()
        [[1]]
    """
    return before.nan_to_num(-torch.inf).argmax(-1)


def nearest_change(
    before: Float[Tensor, "batch response look_back"], least: Float[Tensor, "batch 1"]
) -> Int[Tensor, "batch response"]:
    """Return the place of the nearest change that reaches the threshold.

    Example:
        >>> nearest_change(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[1.5]])).tolist()
        [[1]]
    """
    return (before >= least.unsqueeze(-1)).int().argmax(-1)
