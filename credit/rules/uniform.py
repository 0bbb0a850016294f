"""`Uniform`: every token alike, plain GRPO, or GRPO times a number."""

from dataclasses import dataclass

import torch

from attnscope.credit.assignment import Credit
from attnscope.credit.readings import Readings

__all__ = ["Uniform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """The same weight for every token of every response.

    Attributes:
        factor: The weight. 1 leaves the trainer exactly as it is; another one is the control for
            the size of the advantages, which adaptive optimizers hardly notice.
    """

    factor: float = 1.0

    @property
    def needs(self) -> frozenset[str]:
        """Return nothing: it reads nothing."""
        return frozenset()

    def assign(self, readings: Readings) -> Credit:
        """Return the factor at every token.

        Example:
            >>> Uniform().assign(Readings(mask=torch.tensor([[True, False]]))).weights.tolist()
            [[1.0, 0.0]]
        """
        return Credit(weights=torch.where(readings.mask, self.factor, 0.0), mask=readings.mask)
