"""`rhythm`: WAAD, FAI and span of every head together, from one band."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.future_influence import fai_of_band
from attnscope.metrics.rows import (
    Rows,
    backward_shares,
    chosen_rows,
    mean_rows,
    require_positions,
)
from attnscope.metrics.spans import look_back
from attnscope.metrics.windowed_distance import waad_of_band

__all__ = ["Rhythm", "rhythm"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rhythm:
    """The three statistics of the preplan-and-anchor rhythm, head by head.

    All three are linear in the attention map, so groups of heads may be chosen afterwards: the mean
    over a group's heads equals the statistic of the group's mean map.

    Attributes:
        waad: Windowed average attention distance of each query.
        fai: Future attention influence of each key.
        span: Mean look-back distance of each head.
    """

    waad: Float[Tensor, "*batch head query"]
    fai: Float[Tensor, "*batch head key"]
    span: Float[Tensor, "*batch head"]


def rhythm(
    attention: AttentionOperator,
    *,
    window: int = 10,
    near: int = 10,
    far: int = 50,
    queries: Rows | None = None,
) -> Rhythm:
    """Return what `waad`, `fai` and `head_span` return, at the cost of one band.

    Args:
        attention: Attention along one sequence whose rows are distributions, or parts of one.
        window: Distance at which WAAD clips.
        near: First distance of the FAI horizon.
        far: Last distance of the FAI horizon.
        queries: Rows that FAI and span are taken of, usually the response; by default all.

    Raises:
        MetricError: The attention is no distribution along one sequence, or window or horizon are
            empty.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]))
        >>> beat = rhythm(A, window=2, near=1, far=2)
        >>> [round(float(x), 4) for x in beat.waad[0]], round(float(beat.span), 4)
        ([0.0, 0.5, 0.7], 0.4)
    """
    if window < 1 or not 0 <= near <= far:
        raise MetricError(
            f"rhythm has window {window} and horizon {near} to {far}; it needs window >= 1 and "
            "0 <= near <= far"
        )
    offset = require_positions(attention, "rhythm")
    mass = backward_shares(attention, "rhythm")
    rows = chosen_rows(attention, queries)
    band = attention.band(max(1, min(max(window, far + 1), attention.queries + offset)))
    distance = look_back(attention)
    return Rhythm(
        waad=waad_of_band(band, mass, window),
        fai=fai_of_band(band, rows, near=near, far=far, keys=attention.keys, offset=offset),
        span=mean_rows(distance, rows & ~distance.isnan()),
    )
