"""`Entropy` and `EntropyMask`: credit for the tokens at which the policy hesitates."""

from dataclasses import dataclass

import torch

from attnscope.credit.assignment import Credit
from attnscope.credit.preset import REV, Preset
from attnscope.credit.readings import Readings
from attnscope.credit.row_alignment import RowAlignment, emitting_row
from attnscope.credit.rule import amplified, select_tokens, settle
from attnscope.metrics import top_share

__all__ = ["Entropy", "EntropyMask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """Amplifies the tokens of a response that were drawn from the highest entropies.

    Reference: Li et al. 2025, arXiv:2510.13554, table 3, row "entropy".

    Attributes:
        preset: Share, amplification, sign rule and normalization. Its row alignment speaks of WAAD.
        rows: The row whose entropy a token is judged by. The paper's `H_t` is of the distribution
            that token t was drawn from, the emitting row.
    """

    preset: Preset = REV
    rows: RowAlignment = emitting_row

    @property
    def needs(self) -> frozenset[str]:
        """Return the entropies."""
        return frozenset({"entropy"})

    def emphasize(self, readings: Readings) -> Credit:
        """Return the emphasis on the highest entropies."""
        scores = self.rows(readings.require("entropy", self))
        chosen = select_tokens(scores, readings, self.preset)
        return amplified({"uncertain": chosen}, readings, self.preset)

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyMask:
    """Keeps the tokens of the highest entropies of the whole batch and drops all others.

    Weights are 1 and 0. Selection is by rank over all tokens of the batch, so that ties never
    change the share (the source keeps everything at or above a quantile), and over the batch at
    hand: one process's, where several train together.

    Reference: Wang et al. 2025, arXiv:2506.01939, the "80/20" rule.

    Attributes:
        share: Share of the tokens that are kept.
        rows: The row whose entropy a token is judged by.
    """

    share: float = 0.2
    rows: RowAlignment = emitting_row

    @property
    def needs(self) -> frozenset[str]:
        """Return the entropies."""
        return frozenset({"entropy"})

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        scores = readings.of_tokens(self.rows(readings.require("entropy", self)))
        kept = top_share(scores.flatten(), self.share, total=int(readings.mask.sum()))
        kept = kept.reshape(scores.shape)
        return Credit(
            weights=torch.where(kept, 1.0, 0.0), mask=readings.mask, classes={"uncertain": kept}
        )
