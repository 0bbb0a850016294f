"""`TokenClass`: credit for tokens of a declared kind, wherever they stand."""

from dataclasses import dataclass

import torch

from attnscope.credit.assignment import Credit
from attnscope.credit.preset import REV, Preset
from attnscope.credit.readings import Readings
from attnscope.credit.rule import amplified, settle

__all__ = ["TokenClass"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClass:
    """Amplifies all tokens with certain ids: operators, digits, "wait".

    Our own control: what a rule owes to the kind of token that it happens to select. The preset's
    share plays no part.

    Attributes:
        tokens: Vocabulary ids.
        preset: Amplification, sign rule and normalization.
    """

    tokens: frozenset[int]
    preset: Preset = REV

    @property
    def needs(self) -> frozenset[str]:
        """Return the ids."""
        return frozenset({"ids"})

    def emphasize(self, readings: Readings) -> Credit:
        """Return the emphasis on the tokens of the class."""
        ids = readings.require("ids", self)
        members = torch.isin(ids, torch.tensor(sorted(self.tokens), device=ids.device))
        return amplified({"class": members & readings.mask}, readings, self.preset)

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)
