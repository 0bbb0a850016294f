"""`EntropyShaped`: a bonus on the advantage that grows with a token's entropy."""

from dataclasses import dataclass

import torch

from attnscope.credit.assignment import Credit
from attnscope.credit.errors import CreditError
from attnscope.credit.readings import Readings
from attnscope.credit.row_alignment import RowAlignment, emitting_row

__all__ = ["EntropyShaped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyShaped:
    """Adds ``min(scale H_t, |A| / bound)`` to the advantage, written as a weight.

    ``w_t = 1 + sign(A) min(scale H_t / |A|, 1 / bound)``, so that ``w_t A`` is the sum: the bonus
    never outweighs the advantage. 1 where A is 0 (the bonus is 0 there), where A is NaN, and where
    H_t is undefined.

    Reference: Cheng et al. 2025, arXiv:2506.14758. Formula and defaults are from memory and
        unchecked.

    Attributes:
        scale: alpha of the formula, advantage per nat.
        bound: kappa of the formula, 1 or more: the bonus is at most |A| / kappa.
        rows: The row whose entropy a token is judged by.
    """

    scale: float = 0.4
    bound: float = 2.0
    rows: RowAlignment = emitting_row

    def __post_init__(self) -> None:
        """Refuse a bonus that could turn an advantage around."""
        if self.scale < 0 or self.bound < 1:
            raise CreditError(
                f"scale is {self.scale} and bound {self.bound}; they need scale >= 0, bound >= 1"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Return entropies and advantages."""
        return frozenset({"entropy", "advantage"})

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        entropy = self.rows(readings.require("entropy", self)).detach().nan_to_num(nan=0.0)
        advantage = readings.token_advantage(self).detach()
        size = torch.where(advantage != 0, advantage.abs(), 1)
        bonus = (self.scale * entropy / size).clamp_max(1 / self.bound)
        weights = 1 + (advantage.sign() * bonus).nan_to_num(nan=0.0)
        return Credit(weights=torch.where(readings.mask, weights, 0).float(), mask=readings.mask)
