"""`Preset`: everything that a credit rule has to settle, for both versions of the paper's text."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from attnscope.credit.errors import CreditError
from attnscope.credit.normalization import Normalization, unnormalized
from attnscope.credit.row_alignment import RowAlignment, own_row
from attnscope.metrics import (
    RHYTHM_REV,
    RHYTHM_V1,
    HeadGroups,
    RhythmPreset,
    head_groups,
    top_share,
)

__all__ = ["REV", "V1", "Grouping", "Preset", "Selection"]

Selection = Callable[..., Bool[Tensor, "*batch token"]]
"""`select(scores, share, total=count)`, as `metrics.top_share`."""

Grouping = Callable[[Tensor, float], HeadGroups]
"""`group(spans, quantile)`, as `metrics.head_groups`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How attention is read, which tokens are selected, and what becomes of their advantage.

    Attributes:
        rhythm: Window, horizon, share, head quantile, number of layers, and the sign rule
            (`scales_negative`).
        amplification: Weight of a selected token; the others weigh 1.
        select: Which tokens of a response are taken by their scores.
        rows: Which row speaks for a token in row metrics (the paper: its own).
        normalize: What is done to a response's weights in the end (the paper: nothing).
        grouping: How heads are grouped by their spans.
        layers: Layers to read; by default those that `rhythm` names.

    Reference: Li et al. 2025, arXiv:2510.13554, sections 5.1 to 5.3.
    """

    rhythm: RhythmPreset
    amplification: float = 1.5
    select: Selection = top_share
    rows: RowAlignment = own_row
    normalize: Normalization = unnormalized
    grouping: Grouping = head_groups
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse an amplification that would turn advantages around."""
        if self.amplification < 0:
            raise CreditError(f"amplification is {self.amplification}; a weight is 0 or more")

    def changed(self, **changes: Any) -> "Preset":
        """Return the preset with other values of its own or of its rhythm's fields.

        Raises:
            CreditError: There is no such field.

        Example:
            >>> REV.changed(window=8, amplification=2.0).rhythm.window
            8
        """
        own = {field.name for field in fields(self)} - {"rhythm"}
        rhythm = {field.name for field in fields(self.rhythm)}
        unknown = sorted(set(changes) - own - rhythm)
        if unknown:
            raise CreditError(f"a preset has no {unknown}; it has {sorted(own | rhythm)}")
        inner = {name: value for name, value in changes.items() if name in rhythm}
        outer = {name: value for name, value in changes.items() if name in own}
        return replace(self, rhythm=replace(self.rhythm, **inner), **outer)

    def layers_among(self, candidates: tuple[int, ...]) -> tuple[int, ...]:
        """Return the layers to read, of those that have softmax attention.

        In a model where only some layers have it, the middle third is taken of those (our reading).

        Raises:
            CreditError: A layer that was asked for is not among them.

        Example:
            >>> REV.layers_among(tuple(range(36)))
            (12, 15, 18, 21, 24)
            >>> REV.layers_among((3, 7, 11, 15))  # every fourth layer of a hybrid
            (7, 11)
        """
        if self.layers is None:
            return tuple(candidates[place] for place in self.rhythm.layers(len(candidates)))
        missing = sorted(set(self.layers) - set(candidates))
        if missing or not self.layers:
            raise CreditError(
                f"layers {missing or 'none'} cannot be read; softmax layers are {list(candidates)}"
            )
        return self.layers


V1 = Preset(rhythm=RHYTHM_V1)
"""The text of October 2025: horizon 10 to 50, nonnegative advantages only."""

REV = Preset(rhythm=RHYTHM_REV)
"""The later revision: horizon 10 to 100, advantages of both signs."""
