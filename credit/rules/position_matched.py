"""`PositionMatched`: another response's weights at the same relative positions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.credit.assignment import Credit
from attnscope.credit.errors import CreditError
from attnscope.credit.preset import Preset
from attnscope.credit.readings import Readings
from attnscope.credit.rule import AmplifyingRule, settle
from attnscope.credit.rules.random_share import generator_of

__all__ = ["PositionMatched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionMatched:
    """Gives each response the emphasis of another one, token by token at equal relative position.

    Whatever a rule owes to where in a response it amplifies, this control keeps; what it owes to
    the tokens themselves, it loses. Responses are put in a random circle and each takes from the
    next; token i of n takes from token ``floor((i + 1/2) m / n)`` of m. Our own control.

    Attributes:
        rule: The rule that is controlled for.
        seed: The same seed and `Readings.draw` give the same circle.
    """

    rule: AmplifyingRule
    seed: int = 0

    @property
    def preset(self) -> Preset:
        """Return the rule's own preset."""
        return self.rule.preset

    @property
    def needs(self) -> frozenset[str]:
        """Return what the rule needs."""
        return self.rule.needs

    def emphasize(self, readings: Readings) -> Credit:
        """Return the rule's emphasis, moved.

        Raises:
            CreditError: There is but one response with tokens, and so none to take from.
        """
        emphasis = self.rule.emphasize(readings)
        tokens = [row.nonzero().flatten() for row in readings.mask.cpu()]
        present = torch.tensor([number for number, own in enumerate(tokens) if len(own)])
        if len(present) == 1:
            raise CreditError(
                "PositionMatched exchanges the weights of responses; the batch has one with tokens"
            )
        order = torch.randperm(len(present), generator=generator_of(self.seed, readings))
        circle = present[order].tolist()
        places = [
            (taker, giver, tokens[taker], _relative(tokens[giver], len(tokens[taker])))
            for taker, giver in zip(circle, circle[1:] + circle[:1], strict=True)
        ]
        return Credit(
            weights=_moved(emphasis.weights, places),
            mask=readings.mask,
            classes={name: _moved(members, places) for name, members in emphasis.classes.items()},
        )

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)


def _relative(tokens: Tensor, count: int) -> Tensor:
    """Return the tokens that stand where `count` tokens stand, each in their own response."""
    place = (2 * torch.arange(count) + 1) * len(tokens) // (2 * count)
    return tokens[place]


def _moved(values: Tensor, places: list[tuple[int, int, Tensor, Tensor]]) -> Tensor:
    moved = values.clone()
    for taker, giver, to, source in places:
        moved[taker, to.to(values.device)] = values[giver, source.to(values.device)]
    return moved
