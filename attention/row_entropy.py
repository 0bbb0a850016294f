"""`entropy_of`: the entropy of rows that are held as numbers."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["entropy_of"]


def entropy_of(rows: Float[Tensor, "*row key"]) -> Float[Tensor, "*row"]:
    """Return `-sum_j a_j log a_j` of each row, in nats; an entry of 0 adds nothing.

    Example:
        >>> entropy_of(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).exp().tolist()
        [1.0, 2.0]
    """
    # The logarithm's slope at 0 is infinite: a hidden key would turn every gradient into NaN.
    return -(rows * rows.clamp_min(torch.finfo(rows.dtype).tiny).log()).sum(-1)
