"""`RandomShare`: a random share of the tokens, the control that an amplifying rule has to beat."""

from dataclasses import dataclass

import torch

from attnscope.credit.assignment import Credit
from attnscope.credit.preset import REV, Preset
from attnscope.credit.readings import Readings
from attnscope.credit.rule import amplified, select_tokens, settle

__all__ = ["RandomShare", "generator_of"]

_BATCHES = 1_000_003
"""A prime above any number of batches, so that seeds and batches do not meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomShare:
    """Amplifies the preset's share of each response, drawn at random, anew for each batch.

    Reference: Li et al. 2025, arXiv:2510.13554, table 3, row "random": the paper's own control.

    Attributes:
        preset: Share, amplification, sign rule and normalization.
        seed: The same seed and `Readings.draw` give the same tokens.
    """

    preset: Preset = REV
    seed: int = 0

    @property
    def needs(self) -> frozenset[str]:
        """Return nothing: it reads nothing."""
        return frozenset()

    def emphasize(self, readings: Readings) -> Credit:
        """Return the emphasis on tokens with the highest random numbers."""
        scores = torch.rand(readings.mask.shape, generator=generator_of(self.seed, readings))
        chosen = select_tokens(scores.to(readings.mask.device), readings, self.preset)
        return amplified({"random": chosen}, readings, self.preset)

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)


def generator_of(seed: int, readings: Readings) -> torch.Generator:
    """Return random numbers that depend on a seed and on the number of the batch alone."""
    return torch.Generator().manual_seed(seed * _BATCHES + readings.draw)
