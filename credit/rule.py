"""`Rule`: the one interface of all credit methods, and what amplifying rules share."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.credit.assignment import Credit
from attnscope.credit.preset import Preset
from attnscope.credit.readings import Readings

__all__ = ["AmplifyingRule", "Rule", "amplified", "select_tokens", "settle"]


@runtime_checkable
class Rule(Protocol):
    """Something that turns the readings of a batch of responses into token weights."""

    @property
    def needs(self) -> frozenset[str]:
        """Return the names of the `Readings` that it cannot do without."""
        ...

    def assign(self, readings: Readings) -> Credit:
        """Return the weights, detached, 0 outside of the mask."""
        ...


@runtime_checkable
class AmplifyingRule(Rule, Protocol):
    """A rule that amplifies some tokens by a preset.

    Emphasis comes before the sign rule and normalization, so that a control can move it elsewhere.
    """

    @property
    def preset(self) -> Preset:
        """Return how attention is read and how much is amplified."""
        ...

    def emphasize(self, readings: Readings) -> Credit:
        """Return the weights that the tokens would get whatever the sign of the advantage."""
        ...


def select_tokens(
    scores: Float[Tensor, "batch response"], readings: Readings, preset: Preset
) -> Bool[Tensor, "batch response"]:
    """Return the tokens that a preset selects in each response by their scores.

    The share is taken of the response's own tokens; NaN is never selected, so fewer are taken where
    too few scores are defined, and none of an empty response.
    """
    inside = readings.of_tokens(scores)
    chosen = torch.zeros_like(readings.mask)
    for number, total in enumerate(readings.mask.sum(-1).tolist()):
        chosen[number] = preset.select(inside[number], preset.rhythm.share, total=total)
    return chosen


def amplified(
    classes: Mapping[str, Bool[Tensor, "batch response"]], readings: Readings, preset: Preset
) -> Credit:
    """Return the emphasis that gives every member of a class the preset's amplification."""
    chosen = torch.zeros_like(readings.mask)
    for members in classes.values():
        chosen = chosen | members
    weights = torch.where(chosen, float(preset.amplification), 1.0)
    return Credit(weights=weights, mask=readings.mask, classes=dict(classes))


def settle(emphasis: Credit, readings: Readings, preset: Preset, rule: object) -> Credit:
    """Return the final weights: signs that are not scaled weigh 1, then weights are normalized.

    A response whose advantage is NaN is left alone whatever the sign rule, as its sign is unknown.

    Raises:
        CreditError: The preset scales nonnegative advantages only, and they are not known.
    """
    scaled = torch.ones_like(readings.mask)
    if not preset.rhythm.scales_negative:
        scaled = (readings.token_advantage(rule) >= 0) & scaled
    elif readings.advantage is not None:
        scaled = ~readings.token_advantage(rule).isnan() & scaled
    weights = preset.normalize(torch.where(scaled, emphasis.weights, 1.0), readings.mask)
    return Credit(
        weights=torch.where(readings.mask, weights, 0.0).float().detach(),
        mask=readings.mask,
        classes={name: members & scaled for name, members in emphasis.classes.items()},
    )
