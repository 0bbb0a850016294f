"""`ReadingPlan`: what has to be read of a batch of responses for a rule."""

from collections.abc import Collection
from dataclasses import dataclass

from attnscope.credit.errors import CreditError
from attnscope.credit.head_calibration import HeadCalibration
from attnscope.credit.preset import REV, Preset
from attnscope.credit.rule import AmplifyingRule, Rule

__all__ = ["ReadingPlan", "plan_for"]

GROUP_OF = {
    "local_waad": "local_heads",
    "global_fai": "global_heads",
    "receiver_fai": "receiver_heads",
}
"""The group of heads that each attention reading is the mean of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingPlan:
    """What to read, how, and of which heads.

    Attributes:
        needs: Names of `Readings`; `spans` ranks the heads and reads no more.
        preset: How attention is read.
        calibration: The heads of each group; None to rank them anew in each batch.
    """

    needs: frozenset[str]
    preset: Preset = REV
    calibration: HeadCalibration | None = None

    def __post_init__(self) -> None:
        """Refuse to read heads that nobody named."""
        if self.calibration is None and "receiver_fai" in self.needs:
            raise CreditError(
                "receiver heads are not ranked batch by batch; give a calibration that names them "
                "(HeadCalibration.with_receivers)"
            )
        for need in self.attention if self.calibration is not None else ():
            self.calibration.group(GROUP_OF[need])  # type: ignore[union-attr]

    @property
    def attention(self) -> tuple[str, ...]:
        """Return which attention readings are wanted."""
        return tuple(name for name in GROUP_OF if name in self.needs)

    @property
    def wants_tokens(self) -> bool:
        """Return whether entropies or log-probabilities are wanted."""
        return bool({"entropy", "log_probability"} & self.needs)

    @property
    def wants_heads(self) -> bool:
        """Return whether attention is read, be it for the spans of the heads alone."""
        return bool(self.attention) or "spans" in self.needs

    @property
    def wants_nothing(self) -> bool:
        """Return whether no forward pass has to be listened to."""
        return not self.wants_heads and not self.wants_tokens

    def layers_among(self, present: tuple[int, ...]) -> tuple[int, ...]:
        """Return the layers to read: the calibration's, else those that the preset names.

        Raises:
            CreditError: One of them is not present.
        """
        if self.calibration is None:
            return self.preset.layers_among(present)
        return self.preset.changed(layers=self.calibration.layers).layers_among(present)


def plan_for(
    rule: Rule, calibration: HeadCalibration | None = None, extra: Collection[str] = ()
) -> ReadingPlan:
    """Return the plan of a rule's readings.

    Args:
        rule: The rule.
        calibration: Heads that were named before; None to rank them anew in each batch.
        extra: Further readings, for the log or for other rules.

    Raises:
        CreditError: The rule reads receiver heads, and the calibration names none.
    """
    preset = rule.preset if isinstance(rule, AmplifyingRule) else REV
    return ReadingPlan(needs=rule.needs | frozenset(extra), preset=preset, calibration=calibration)
