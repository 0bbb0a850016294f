"""`Global` and `Receiver`: credit for anchor tokens, which later tokens keep reading."""

from dataclasses import dataclass

from attnscope.credit.assignment import Credit
from attnscope.credit.preset import REV, Preset
from attnscope.credit.readings import Readings
from attnscope.credit.rule import amplified, select_tokens, settle

__all__ = ["Global", "Receiver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Global:
    """Amplifies the tokens with the highest FAI of the global heads.

    ``gamma_t = 1 + (g - 1) 1[t in the top share by FAI]``. Tokens nearer to the end than the
    horizon begins have no FAI and are never selected; a response shorter than that keeps weights
    of 1.

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.2, global-anchor credit.

    Attributes:
        preset: All settings.
    """

    preset: Preset = REV

    @property
    def needs(self) -> frozenset[str]:
        """Return FAI of the global heads."""
        return frozenset({"global_fai"})

    def emphasize(self, readings: Readings) -> Credit:
        """Return the emphasis on the highest FAI."""
        chosen = select_tokens(readings.require("global_fai", self), readings, self.preset)
        return amplified({"anchor": chosen}, readings, self.preset)

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Amplifies the tokens with the highest FAI of the receiver heads.

    Receiver heads are those whose later sentences return to few earlier ones; the calibration names
    them (`HeadCalibration.with_receivers`). Their FAI is what the paper compares with the global
    heads'; credit by it is our variant.

    Reference: Li et al. 2025, arXiv:2510.13554, table 2; Bogdan et al. 2025, arXiv:2506.19143.

    Attributes:
        preset: All settings.
    """

    preset: Preset = REV

    @property
    def needs(self) -> frozenset[str]:
        """Return FAI of the receiver heads."""
        return frozenset({"receiver_fai"})

    def emphasize(self, readings: Readings) -> Credit:
        """Return the emphasis on the highest FAI."""
        chosen = select_tokens(readings.require("receiver_fai", self), readings, self.preset)
        return amplified({"anchor": chosen}, readings, self.preset)

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)
