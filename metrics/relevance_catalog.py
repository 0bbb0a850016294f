"""The part of the catalog that follows positive gradients through all layers."""

from attnscope.metrics.metric import Metric
from attnscope.metrics.relevance_of_traces import gradient_rollout_of, relevance_of

__all__ = ["RELEVANCE_CATALOG"]

_NEEDS = ("positions", "shares", "value", "gradient")

RELEVANCE_CATALOG: tuple[Metric, ...] = (
    Metric(
        name="relevance",
        title="Relevance",
        axes=("key",),
        bounds=(0.0, None),
        needs=_NEEDS,
        paper="Chefer et al. 2021, arXiv:2103.15679",
        over="trace",
        measure=relevance_of,
        options={"query": -1},
    ),
    Metric(
        name="gradient_rollout",
        title="Rollout of positive gradients",
        axes=("key",),
        bounds=(0.0, 1.0),
        needs=_NEEDS,
        paper="Abnar and Zuidema 2020, arXiv:2005.00928; Chefer et al. 2021, arXiv:2103.15679",
        over="trace",
        measure=gradient_rollout_of,
        options={"query": -1},
    ),
)
"""Metrics of one target's gradient whose values belong to the whole model."""
