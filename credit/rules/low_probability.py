"""`LowProbability`: less credit for unlikely tokens, whose gradients are the largest."""

from dataclasses import dataclass

import torch

from attnscope.credit.assignment import Credit
from attnscope.credit.errors import CreditError
from attnscope.credit.readings import Readings

__all__ = ["LowProbability"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LowProbability:
    """Weighs each token by ``damping pi_t + (1 - damping)``, pi_t being its probability.

    1 for a certain token, 1 - damping for an impossible one; a token without a log-probability
    weighs 1.

    Reference: Yang et al. 2025, arXiv:2505.12929, advantage reweighting. Formula and the default of
        0.3 are from memory and unchecked.

    Attributes:
        damping: alpha of the formula, between 0 (no damping) and 1.
    """

    damping: float = 0.3

    def __post_init__(self) -> None:
        """Refuse a damping outside 0 to 1."""
        if not 0 <= self.damping <= 1:
            raise CreditError(f"damping is {self.damping}; it lies between 0 and 1")

    @property
    def needs(self) -> frozenset[str]:
        """Return the log-probabilities."""
        return frozenset({"log_probability"})

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        probability = readings.require("log_probability", self).detach().exp().nan_to_num(nan=1.0)
        weights = self.damping * probability + (1 - self.damping)
        return Credit(weights=torch.where(readings.mask, weights, 0).float(), mask=readings.mask)
