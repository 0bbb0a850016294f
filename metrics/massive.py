"""Massive activations: the few entries of a hidden state that dwarf all others."""

from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise

__all__ = ["largest_activations", "massive_activations", "median_activation"]


def largest_activations(
    hidden: Float[Tensor, "position width"], count: int = 3
) -> Float[Tensor, "{count}"]:
    """Return the largest magnitudes of a hidden state, the largest first.

    Raises:
        MetricError: The hidden state has fewer entries.

    Reference: Sun et al. 2024, arXiv:2402.17762; its curve over layers shows the top three beside
        the median.

    Example:
        >>> import torch
        >>> largest_activations(torch.tensor([[1.0, -9.0], [4.0, 2.0]])).tolist()
        [9.0, 4.0, 2.0]
    """
    if hidden.numel() < count:
        raise MetricError(f"hidden state {tuple(hidden.shape)} has no {count} largest entries")
    return precise(hidden).abs().flatten().topk(count).values


def median_activation(hidden: Float[Tensor, "position width"]) -> Float[Tensor, ""]:
    """Return the median magnitude of a hidden state (the lower of the two middle ones if even).

    Reference: Sun et al. 2024, arXiv:2402.17762.

    Example:
        >>> import torch
        >>> float(median_activation(torch.tensor([[1.0, -9.0], [4.0, 2.0]])))
        2.0
    """
    return precise(hidden).abs().median()


def massive_activations(
    hidden: Float[Tensor, "position width"],
    *,
    threshold: float = 100.0,
    ratio: float = 1000.0,
    tolerance: float = 0.0,
) -> Bool[Tensor, "position width"]:
    """Return which entries of a hidden state are massive.

    An entry is massive when its magnitude is above `threshold` and at least `ratio` times the
    median magnitude of the whole hidden state. The source says "around 1,000 times": `tolerance`
    lowers the ratio by that share (our reading; 0 takes it strictly).

    Args:
        hidden: The residual stream at one layer.
        threshold: Magnitude to exceed.
        ratio: Multiple of the median to reach.
        tolerance: Share by which the ratio may be missed, from 0 to 1.

    Raises:
        MetricError: The tolerance lies outside 0 to 1.

    Reference: Sun et al. 2024, arXiv:2402.17762, section 2.

    Example:
        >>> import torch
        >>> hidden = torch.tensor([[0.2, 250.0, 0.2, 0.1, 150.0, 0.2, 0.1]])
        >>> massive_activations(hidden).nonzero().tolist()  # 1,250 times the median; 750 times
        [[0, 1]]
        >>> massive_activations(hidden, tolerance=0.25).nonzero().tolist()
        [[0, 1], [0, 4]]
    """
    if not 0 <= tolerance <= 1:
        raise MetricError(f"massive activation tolerance is {tolerance}; it lies between 0 and 1")
    magnitude = precise(hidden).abs()
    return (magnitude > threshold) & (magnitude >= (1 - tolerance) * ratio * magnitude.median())
