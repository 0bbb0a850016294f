"""`waad`: windowed average attention distance, how far back a token looks when far is cut off."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import backward_shares, precise, require_positions

__all__ = ["waad", "waad_of_band"]


def waad(attention: AttentionOperator, window: int = 10) -> Float[Tensor, "*batch head query"]:
    """Return the windowed average attention distance (WAAD) of each query.

    ``WAAD_t = sum_{s <= t} A_ts min(t - s, W)``: the mean distance at which query t reads, where
    everything further than the window W counts as W. 0 when a token reads itself alone; W when it
    reads nothing nearer than W. Computed as ``W sum_s A_ts - sum_{d < W} (W - d) A_t,t-d``, so only
    the last W diagonals are looked at. Rows with a learned sink sum to less than 1; what the sink
    takes stands at no distance. NaN for a query that sees no key, and for one that reads ahead of
    itself (patches of an image that see each other).

    Args:
        attention: Attention along one sequence whose rows are distributions, or parts of one.
        window: Distance W at which distances are clipped.

    Raises:
        MetricError: The attention is no distribution along one sequence, looks ahead throughout, or
            the window is below 1.

    Reference: Li et al. 2025, arXiv:2510.13554, definition 4.1 and equation 9. There it is taken of
        the mean map of the local heads, and of response tokens; it is linear in the map, so the
        mean over heads may follow.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> [round(float(x), 4) for x in waad(A, window=2)[0]]  # last: 0.2 * 2 + 0.3 * 1
        [0.0, 0.5, 0.7]
    """
    if window < 1:
        raise MetricError(f"waad window is {window}; distances are clipped at 1 or more")
    offset = require_positions(attention, "waad")
    mass = backward_shares(attention, "waad")
    reach = max(1, min(window, attention.queries + offset))
    return waad_of_band(attention.band(reach), mass, window)


def waad_of_band(
    band: Float[Tensor, "*batch head query width"],
    mass: Float[Tensor, "*batch head query"],
    window: int,
) -> Float[Tensor, "*batch head query"]:
    """Return WAAD from a band that holds every distance below the window that occurs.

    Args:
        band: Attention by distance, `A[t, t - d]`; wider than the window is allowed.
        mass: What each row sums to.
        window: Distance at which distances are clipped.
    """
    near = precise(band[..., :window])
    missing = window - torch.arange(near.shape[-1], device=band.device, dtype=near.dtype)
    return (window * mass - near @ missing).clamp_min(0)
