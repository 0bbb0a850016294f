"""The part of the catalog that asks a model of pictures and words how it reads the pictures."""

from attnscope.metrics.metric import Metric
from attnscope.metrics.picture_observing import (
    image_attention_of,
    image_centric_share_of,
    saliency_of,
    segment_attention_of,
    segment_names,
    sink_dimension_value_of,
    visual_nonsink_ratio_of,
    visual_sinks_of,
)

__all__ = ["PICTURE_CATALOG"]

_SINK = "Kang et al. 2025, arXiv:2503.03321"
_QUERY = ("layer", "head", "query")
_SINKS = {"dimensions": None, "tau": 20.0}

PICTURE_CATALOG: tuple[Metric, ...] = (
    Metric(
        name="segment_attention",
        title="Attention to segments",
        axes=("layer", "head", "segment"),
        bounds=(0.0, 1.0),
        needs=("shares", "segments"),
        paper="our own measure",
        measure=segment_attention_of,
        labels=segment_names,
        options={"queries": None},
    ),
    Metric(
        name="image_attention",
        title="Attention to the image",
        axes=_QUERY,
        bounds=(0.0, 1.0),
        needs=("shares", "image"),
        paper=_SINK,
        measure=image_attention_of,
    ),
    Metric(
        name="sink_dimension_value",
        title="Sink dimension value",
        axes=("layer", "token"),
        bounds=(0.0, None),
        needs=("hidden",),
        paper=_SINK,
        measure=sink_dimension_value_of,
        options={"dimensions": None},
    ),
    Metric(
        name="visual_sink",
        title="Visual attention sinks",
        axes=("layer", "token"),
        bounds=(0.0, 1.0),
        needs=("hidden", "image"),
        paper=_SINK,
        measure=visual_sinks_of,
        options=_SINKS,
    ),
    Metric(
        name="visual_nonsink_ratio",
        title="Visual non-sink ratio",
        axes=_QUERY,
        bounds=(0.0, 1.0),
        needs=("shares", "hidden", "image"),
        paper=_SINK,
        measure=visual_nonsink_ratio_of,
        options=_SINKS,
    ),
    Metric(
        name="image_centric_share",
        title="Image-centric heads, share of queries",
        axes=("layer", "head"),
        bounds=(0.0, 1.0),
        needs=("shares", "hidden", "image"),
        paper=f"{_SINK}; the share of queries is ours",
        measure=image_centric_share_of,
        options={**_SINKS, "rho": 0.8, "least_mass": 0.2, "queries": None},
    ),
    Metric(
        name="saliency",
        title="Saliency, attention times gradient",
        axes=("layer", "key"),
        bounds=(0.0, 1.0),
        needs=("value", "gradient"),
        paper="Zhang et al. 2026, arXiv:2601.20279, equation 5",
        measure=saliency_of,
        options={"query": None},
    ),
)
"""Metrics of pictures in a text, in the order in which screens list them."""
