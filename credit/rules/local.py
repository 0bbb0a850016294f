"""`Local`: credit for preplan tokens, which open a chunk of text."""

from dataclasses import dataclass

from attnscope.credit.assignment import Credit
from attnscope.credit.preset import REV, Preset
from attnscope.credit.readings import Readings
from attnscope.credit.rule import amplified, select_tokens, settle
from attnscope.metrics import waad_change

__all__ = ["Local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Amplifies the tokens at which WAAD of the local heads changes most.

    ``Delta_t = |WAAD_t - WAAD_{t+1}|``, ``gamma_t = 1 + (g - 1) 1[t in the top share by Delta]``.
    The last token's change is undefined, hence never selected (with the emitting row it is the
    change from the row before to its own, which is defined everywhere).

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.2, local-chunk credit.

    Attributes:
        preset: All settings.
    """

    preset: Preset = REV

    @property
    def needs(self) -> frozenset[str]:
        """Return WAAD of the local heads."""
        return frozenset({"local_waad"})

    def emphasize(self, readings: Readings) -> Credit:
        """Return the emphasis on the largest changes."""
        change = waad_change(readings.require("local_waad", self))
        chosen = select_tokens(self.preset.rows(change), readings, self.preset)
        return amplified({"preplan": chosen}, readings, self.preset)

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)
