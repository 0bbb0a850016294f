"""`Coupled`: credit for anchor tokens, part of which goes back to the token that prepared them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from attnscope.credit.assignment import Credit
from attnscope.credit.errors import CreditError
from attnscope.credit.preset import REV, Preset
from attnscope.credit.readings import Readings
from attnscope.credit.rule import select_tokens, settle
from attnscope.credit.thresholds import Introduction, Threshold, largest_change, response_median
from attnscope.metrics import waad_change

__all__ = ["Coupled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupled:
    r"""Amplifies anchors, and gives a share of it back where an anchor is locally dominated.

    An anchor t is dominated (in D) when ``WAAD_t <= tau_waad`` and
    ``max over t-k <= u < t of Delta_u >= tau_delta``: it stands inside a chunk that a token just
    before it opened, ``intro(t)``. With anchors T and I(D) the introductory tokens of D,

    ``gamma_t = 1 + (g-1) 1[t in T \ D] + (1-alpha)(g-1) 1[t in D] + alpha (g-1) 1[t in I(D)]``.

    The bonuses add up where an introductory token is an anchor itself; one that introduces two
    anchors is counted once. So ``sum(gamma - 1) = (g-1)(|T \ D| + (1-alpha)|D| + alpha |I(D)|)``.
    alpha = 0 is `Global`.

    The paper gives neither alpha, nor the thresholds, nor intro() as a formula, and k in {1, 2, 3}:
    a half, the response's own medians, the largest change and 3 are our reading (medians, a half
    and 3 as in a public re-implementation, which is not the authors').

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.2, coupled rhythm credit.

    Attributes:
        preset: All settings that the rules have in common.
        back_share: alpha, the share of a dominated anchor's bonus that goes back.
        look_back: k, how many tokens before an anchor may introduce it.
        waad_threshold: tau_waad, from the WAAD of each response.
        change_threshold: tau_delta, from the WAAD changes of each response.
        introduce: Which of the k tokens introduces an anchor.
    """

    preset: Preset = REV
    back_share: float = 0.5
    look_back: int = 3
    waad_threshold: Threshold = response_median
    change_threshold: Threshold = response_median
    introduce: Introduction = largest_change

    def __post_init__(self) -> None:
        """Refuse a share outside 0 to 1 and a look-back of nothing."""
        if not 0 <= self.back_share <= 1 or self.look_back < 1:
            raise CreditError(
                f"back_share is {self.back_share} and look_back {self.look_back}; they need a "
                "share between 0 and 1 and one token at least"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Return WAAD of the local and FAI of the global heads."""
        return frozenset({"local_waad", "global_fai"})

    def emphasize(self, readings: Readings) -> Credit:
        """Return the emphasis on anchors and on what introduces them."""
        rows, alignment = readings.require("local_waad", self), self.preset.rows
        anchors = select_tokens(readings.require("global_fai", self), readings, self.preset)
        waad = readings.of_tokens(alignment(rows))
        change = readings.of_tokens(alignment(waad_change(rows)))
        before = _before(change, self.look_back)
        least_change = self.change_threshold(change)
        low = waad <= self.waad_threshold(waad)
        opened = before.nan_to_num(-torch.inf).amax(-1) >= least_change
        dominated = anchors & low & opened
        distance = self.introduce(before, least_change) + 1
        introductory = _introductory(dominated, distance)
        bonus = (anchors & ~dominated) + (1 - self.back_share) * dominated
        bonus = bonus + self.back_share * introductory
        return Credit(
            weights=1.0 + (self.preset.amplification - 1) * bonus,
            mask=readings.mask,
            classes={
                "anchor": anchors & ~dominated,
                "dominated": dominated,
                "introductory": introductory,
            },
        )

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return settle(self.emphasize(readings), readings, self.preset, self)


def _before(
    change: Float[Tensor, "batch response"], count: int
) -> Float[Tensor, "batch response {count}"]:
    """Return the changes of the `count` tokens before each, nearest first, NaN where none is."""
    width = change.shape[-1]
    shifted = [
        pad(change, (distance, 0), value=torch.nan)[:, :width] for distance in range(1, count + 1)
    ]
    return torch.stack(shifted, dim=-1)


def _introductory(
    dominated: Bool[Tensor, "batch response"], distance: Tensor
) -> Bool[Tensor, "batch response"]:
    """Return the tokens that introduce a dominated anchor, each once."""
    introductory = torch.zeros_like(dominated)
    row, anchor = dominated.nonzero(as_tuple=True)
    introductory[row, anchor - distance[row, anchor]] = True
    return introductory
