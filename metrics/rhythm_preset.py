"""`RhythmPreset`: the settings of the preplan-and-anchor paper, one per version of its text."""

from dataclasses import dataclass

from attnscope.metrics.errors import MetricError

__all__ = ["RHYTHM_REV", "RHYTHM_V1", "RhythmPreset", "middle_layers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RhythmPreset:
    """How WAAD, FAI and head groups are taken, and which advantages they may scale.

    Attributes:
        window: Distance at which WAAD clips.
        near: First distance of the FAI horizon.
        far: Last distance of the FAI horizon.
        share: Share of the response that is selected as preplan tokens, and as anchor tokens.
        quantile: Share of the considered heads in the local group, and in the global group.
        layer_count: Number of layers looked at, evenly spaced in the middle third.
        scales_negative: Whether tokens of responses with a negative advantage are scaled too.

    Reference: Li et al. 2025, arXiv:2510.13554, sections 4.1, 5.1 to 5.3 and appendix A.1.
    """

    window: int = 10
    near: int = 10
    far: int
    share: float = 0.4
    quantile: float = 0.3
    layer_count: int = 5
    scales_negative: bool

    def layers(self, total: int) -> tuple[int, ...]:
        """Return the layers that are looked at in a model with this many."""
        return middle_layers(total, self.layer_count)


RHYTHM_V1 = RhythmPreset(far=50, scales_negative=False)
"""The text of October 2025: horizon 10 to 50, nonnegative advantages only."""

RHYTHM_REV = RhythmPreset(far=100, scales_negative=True)
"""The later revision: horizon 10 to 100, advantages of both signs."""


def middle_layers(total: int, count: int = 5) -> tuple[int, ...]:
    """Return layers evenly spaced in the middle third of a model.

    The third goes from `floor(total / 3)` to `floor(2 total / 3)`, both included. Where the step is
    not whole, layers are rounded to the nearest, halves up (our reading: the paper does not say); a
    third too short for `count` layers gives fewer.

    Raises:
        MetricError: There are fewer than one layer or fewer than two to choose.

    Reference: Li et al. 2025, arXiv:2510.13554, section 5.1.

    Example:
        >>> middle_layers(36)
        (12, 15, 18, 21, 24)
        >>> middle_layers(28)  # 9 to 18 in steps of 2.25
        (9, 11, 14, 16, 18)
        >>> middle_layers(4)
        (1, 2)
    """
    if total < 1 or count < 2:
        raise MetricError(
            f"middle_layers({total}, {count}) needs one layer and a count of two at least"
        )
    first, last = total // 3, 2 * total // 3
    steps = count - 1
    # Whole numbers only: floor(first + i * (last - first) / steps + 1/2).
    chosen = (
        (2 * (first * steps + i * (last - first)) + steps) // (2 * steps) for i in range(count)
    )
    return tuple(dict.fromkeys(chosen))
