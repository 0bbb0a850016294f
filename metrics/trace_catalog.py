"""The part of the catalog that is measured over all layers together."""

from attnscope.attention import key_position
from attnscope.metrics.group_rhythm import (
    anchor_token,
    global_fai,
    local_waad,
    preplan,
    preplan_token,
    receiver_fai,
)
from attnscope.metrics.metric import Metric
from attnscope.metrics.observing import rollout_of
from attnscope.metrics.relevance_catalog import RELEVANCE_CATALOG

__all__ = ["TRACE_CATALOG"]

_RHYTHM = "Li et al. 2025, arXiv:2510.13554"
_NEEDS = ("positions", "shares")
_LOCAL = {"window": 10, "quantile": 0.3, "queries": None}
_GLOBAL = {"near": 10, "far": 50, "quantile": 0.3, "queries": None}

TRACE_CATALOG: tuple[Metric, ...] = (
    Metric(
        name="local_waad",
        title="Windowed average attention distance of the local heads",
        unit="tokens",
        axes=("query",),
        bounds=(0.0, "window"),
        needs=_NEEDS,
        paper=f"{_RHYTHM}, definition 4.1 and equation 8",
        over="trace",
        measure=local_waad,
        rides=(key_position,),
        options=_LOCAL,
    ),
    Metric(
        name="preplan",
        title="Change of windowed average attention distance",
        unit="tokens",
        axes=("query",),
        bounds=(0.0, "window"),
        needs=_NEEDS,
        paper=f"{_RHYTHM}, section 5.2",
        over="trace",
        measure=preplan,
        rides=(key_position,),
        options=_LOCAL,
    ),
    Metric(
        name="preplan_token",
        title="Preplan tokens",
        axes=("query",),
        bounds=(0.0, 1.0),
        needs=_NEEDS,
        paper=f"{_RHYTHM}, section 5.2",
        over="trace",
        measure=preplan_token,
        rides=(key_position,),
        options={**_LOCAL, "share": 0.4},
    ),
    Metric(
        name="global_fai",
        title="Future attention influence of the global heads",
        axes=("key",),
        bounds=(0.0, 1.0),
        needs=_NEEDS,
        paper=f"{_RHYTHM}, definition 4.2 and equation 8",
        over="trace",
        measure=global_fai,
        rides=(key_position,),
        options=_GLOBAL,
    ),
    Metric(
        name="anchor_token",
        title="Anchor tokens",
        axes=("key",),
        bounds=(0.0, 1.0),
        needs=_NEEDS,
        paper=f"{_RHYTHM}, section 5.2",
        over="trace",
        measure=anchor_token,
        rides=(key_position,),
        options={**_GLOBAL, "share": 0.4},
    ),
    Metric(
        name="receiver_fai",
        title="Future attention influence of the receiver heads",
        axes=("key",),
        bounds=(0.0, 1.0),
        needs=_NEEDS,
        paper=f"{_RHYTHM}, section 4.2; Bogdan et al. 2025, arXiv:2506.19143",
        over="trace",
        measure=receiver_fai,
        options={
            "near": 10,
            "far": 50,
            "queries": None,
            "sentences": None,
            "proximity": 4,
            "heads": 20,
        },
    ),
    Metric(
        name="rollout",
        title="Attention rollout",
        axes=("key",),
        bounds=(0.0, 1.0),
        needs=_NEEDS,
        paper="Abnar and Zuidema 2020, arXiv:2005.00928",
        over="trace",
        measure=rollout_of,
        options={"query": -1},
    ),
    *RELEVANCE_CATALOG,
)
"""Metrics whose values belong to the whole model."""
