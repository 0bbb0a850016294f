"""`coupled_pairs`: anchor tokens that a token right before them prepared, and that token."""

from dataclasses import dataclass

import torch

from attnscope.credit import V1, Coupled, Readings
from attnscope.metrics import Reading, waad_change

__all__ = ["CoupledPair", "coupled_pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoupledPair:
    """A locally dominated anchor and what introduces it.

    Attributes:
        introductory: Position of the token that opens the chunk.
        anchor: Position of the anchor in it.
        change: Change of WAAD at the first, in tokens.
        influence: FAI of the second.
    """

    introductory: int
    anchor: int
    change: float
    influence: float


def coupled_pairs(waad: Reading, fai: Reading) -> list[CoupledPair]:
    """Return the pairs of a response by the rule of coupled credit, in order of the text.

    The rule's own settings for this horizon (10 to 50): thresholds are the response's medians, and
    of the three tokens before a dominated anchor the one with the largest change introduces it.

    Args:
        waad: WAAD of the response's tokens in the local heads.
        fai: FAI of the same tokens in the global heads.

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.2; our reading, see `Coupled`.
    """
    rule = Coupled(preset=V1)
    own = waad.values.float()
    rows = torch.cat([torch.tensor([torch.nan]), own]).unsqueeze(0)
    readings = Readings(
        mask=torch.ones(1, len(own), dtype=torch.bool),
        local_waad=rows,
        global_fai=fai.values.float().unsqueeze(0),
    )
    change = waad_change(own).nan_to_num(-1.0).tolist()
    positions = waad.positions[waad.axes[0]]
    pairs = []
    for place in rule.emphasize(readings).classes["dominated"][0].nonzero().flatten().tolist():
        before = range(place - 1, max(place - 1 - rule.look_back, -1), -1)
        opened = max(before, key=lambda earlier: change[earlier])  # the nearest among equals
        pairs.append(
            CoupledPair(
                introductory=positions[opened],
                anchor=positions[place],
                change=change[opened],
                influence=float(fai.values[place]),
            )
        )
    return pairs
