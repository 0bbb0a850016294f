"""`local_peaks`: where a series is higher than at both neighbors."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["local_peaks"]


def local_peaks(series: Float[Tensor, "*batch token"]) -> Bool[Tensor, "*batch token"]:
    """Return which tokens are strict local maxima of a series.

    A peak is higher than the token before it and the token after it. The first and the last token,
    plateaus and neighbors of NaN are no peaks. This is our reading: the paper that speaks of peaks
    of WAAD and FAI does not define them.

    Reference: Li et al. 2025, arXiv:2510.13554, section 4.2 and appendix A.1.

    Example:
        >>> local_peaks(torch.tensor([5.0, 1.0, 2.0, 1.0, 3.0, 3.0, 0.0])).int().tolist()
        [0, 0, 1, 0, 0, 0, 0]
    """
    if series.shape[-1] < 3:
        return torch.zeros_like(series, dtype=torch.bool)
    middle = series[..., 1:-1]
    inside = (middle > series[..., :-2]) & (middle > series[..., 2:])
    return pad(inside, (1, 1))
