"""`ShuffledHeads`: a rule on groups of heads that were put together at random."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.credit.assignment import Credit
from attnscope.credit.preset import Grouping, Preset
from attnscope.credit.readings import Readings
from attnscope.credit.rule import AmplifyingRule
from attnscope.metrics import HeadGroups

__all__ = ["ShuffledGrouping", "ShuffledHeads"]


@dataclass(frozen=True, slots=True)
class ShuffledGrouping:
    """A grouping after the heads have exchanged their spans at random.

    Attributes:
        grouping: The grouping that is controlled for.
        seed: The same seed and number of heads give the same exchange.
    """

    grouping: Grouping
    seed: int = 0

    def __call__(self, spans: Float[Tensor, "layer head"], quantile: float) -> HeadGroups:
        """Return groups of the usual sizes, of heads that have nothing in common."""
        order = torch.randperm(spans.numel(), generator=torch.Generator().manual_seed(self.seed))
        exchanged = spans.reshape(-1)[order.to(spans.device)].reshape(spans.shape)
        return self.grouping(exchanged, quantile)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffledHeads:
    """A rule on heads grouped at random: what it keeps is not owed to local and global heads.

    Our own control. It works through the preset's grouping, so readings must be made for this rule,
    not for the one inside, and a calibration must be made with its preset.

    Attributes:
        rule: The rule that is controlled for.
        seed: The same seed gives the same groups, batch after batch.
    """

    rule: AmplifyingRule
    seed: int = 0

    @property
    def preset(self) -> Preset:
        """Return the rule's preset with shuffled heads."""
        preset = self.rule.preset
        return preset.changed(grouping=ShuffledGrouping(preset.grouping, self.seed))

    @property
    def needs(self) -> frozenset[str]:
        """Return what the rule needs."""
        return self.rule.needs

    def emphasize(self, readings: Readings) -> Credit:
        """Return the rule's emphasis."""
        return self.rule.emphasize(readings)

    def assign(self, readings: Readings) -> Credit:
        """Return the rule's weights."""
        return self.rule.assign(readings)
