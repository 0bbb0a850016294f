"""The rhythm of a whole model: WAAD of its local heads, FAI of its global and receiver heads.

Heads of all measured layers are grouped together, so these need every layer; but only small sums of
each layer are kept, so they stream. Measure some layers alone by capturing or selecting those.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from attnscope.metrics.future_influence import fai
from attnscope.metrics.head_grouping import group_mean, head_groups
from attnscope.metrics.metric import Streamed
from attnscope.metrics.observing import receiver_score_of, response_rows
from attnscope.metrics.preplan_anchor import waad_change
from attnscope.metrics.receiver import receiver_heads
from attnscope.metrics.rows import Rows, chosen_rows, require_positions
from attnscope.metrics.selection import top_share
from attnscope.metrics.spans import head_span
from attnscope.metrics.windowed_distance import waad
from attnscope.traces import Observation

__all__ = ["anchor_token", "global_fai", "local_waad", "preplan", "preplan_token", "receiver_fai"]

Parts = Mapping[str, Tensor]


def _local_part(
    observation: Observation, window: int = 10, queries: Rows | None = None, **_: object
) -> Parts:
    attention, rows = observation.attention, _rows(observation, queries)
    return {
        "span": head_span(attention, rows),
        "waad": waad(attention, window),
        "response": chosen_rows(attention, rows).any(-2),
    }


def _global_part(
    observation: Observation,
    near: int = 10,
    far: int | None = 50,
    queries: Rows | None = None,
    **_: object,
) -> Parts:
    attention, rows = observation.attention, _rows(observation, queries)
    offset = require_positions(attention, "global_fai")
    behind = attention.keys - attention.queries - offset
    return {
        "span": head_span(attention, rows),
        "fai": fai(attention, near, far, rows),
        "response": pad(chosen_rows(attention, rows).any(-2), (offset, behind)),
    }


def _receiver_part(
    observation: Observation,
    near: int = 10,
    far: int | None = 50,
    queries: Rows | None = None,
    sentences: Sequence[tuple[int, int]] | None = None,
    proximity: int = 4,
    **_: object,
) -> Parts:
    return {
        "score": receiver_score_of(observation, sentences, proximity),
        "fai": fai(observation.attention, near, far, _rows(observation, queries)),
    }


def _rows(observation: Observation, queries: Rows | None) -> Rows | None:
    return response_rows(observation) if queries is None else queries


def _local_waad(parts: Parts, quantile: float = 0.3, **_: object) -> Float[Tensor, " query"]:
    return group_mean(parts["waad"], head_groups(parts["span"], quantile).local_heads)


def _preplan(parts: Parts, quantile: float = 0.3, **_: object) -> Float[Tensor, " query"]:
    response = torch.where(parts["response"][0], _local_waad(parts, quantile), torch.nan)
    return waad_change(response)


def _preplan_token(
    parts: Parts, quantile: float = 0.3, share: float = 0.4, **_: object
) -> Float[Tensor, " query"]:
    return _selected(_preplan(parts, quantile), share, parts["response"][0])


def _global_fai(parts: Parts, quantile: float = 0.3, **_: object) -> Float[Tensor, " key"]:
    return group_mean(parts["fai"], head_groups(parts["span"], quantile).global_heads)


def _anchor_token(
    parts: Parts, quantile: float = 0.3, share: float = 0.4, **_: object
) -> Float[Tensor, " key"]:
    response = parts["response"][0]
    within = torch.where(response, _global_fai(parts, quantile), torch.nan)
    return _selected(within, share, response)


def _selected(
    scores: Float[Tensor, " token"], share: float, response: Bool[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """Return 1 for the top share of the response and 0 for the rest of it, NaN elsewhere."""
    chosen = top_share(scores, share, total=int(response.sum())).to(scores.dtype)
    return torch.where(response, chosen, torch.nan)


def _receiver_fai(parts: Parts, heads: int = 20, **_: object) -> Float[Tensor, " key"]:
    return group_mean(parts["fai"], receiver_heads(parts["score"], heads))


local_waad = Streamed(part=_local_part, whole=_local_waad)
"""WAAD of the mean map of the local heads, at every query."""

preplan = Streamed(part=_local_part, whole=_preplan)
"""Change of that WAAD at the next token of the response, NaN outside of it."""

preplan_token = Streamed(part=_local_part, whole=_preplan_token)
"""1 for the preplan tokens of the response, 0 for its others, NaN outside of it."""

global_fai = Streamed(part=_global_part, whole=_global_fai)
"""FAI of the mean map of the global heads, at every key."""

anchor_token = Streamed(part=_global_part, whole=_anchor_token)
"""1 for the anchor tokens of the response, 0 for its others, NaN outside of it."""

receiver_fai = Streamed(part=_receiver_part, whole=_receiver_fai)
"""FAI of the mean map of the receiver heads (our reading of the paper's receiver FAI)."""
