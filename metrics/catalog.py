"""The catalog of metrics: every metric that can be asked for by name."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from attnscope.attention import key_position
from attnscope.metrics.entropy import attention_entropy, normalized_entropy, participation_ratio
from attnscope.metrics.errors import MetricError
from attnscope.metrics.future_influence import fai
from attnscope.metrics.head_divergence import divergence_of_heads
from attnscope.metrics.image_catalog import IMAGE_CATALOG
from attnscope.metrics.locality import mean_distance, window_mass
from attnscope.metrics.mass import negative_share, own_share, row_sum
from attnscope.metrics.massive import largest_activations, median_activation
from attnscope.metrics.metric import Metric
from attnscope.metrics.observing import (
    duplicate_token_of,
    induction_of,
    massive_activations_of,
    of_attention,
    of_hidden,
    of_response,
    previous_token_of,
    receiver_score_of,
    sentence_labels,
    sink_rate_of,
    vertical_score_of,
)
from attnscope.metrics.sink import received_attention, sink_mass
from attnscope.metrics.spans import head_span
from attnscope.metrics.trace_catalog import TRACE_CATALOG
from attnscope.metrics.windowed_distance import waad

__all__ = ["CATALOG", "METRICS", "find_metric"]

_RHYTHM = "Li et al. 2025, arXiv:2510.13554"
_SINK = "Gu et al. 2024, arXiv:2410.10781"
_VIT = "Dosovitskiy et al. 2020, arXiv:2010.11929, mean attention distance"
_ENTROPY = "Zhai et al. 2023, arXiv:2303.06296"
_INDUCTION = "Olsson et al. 2022, arXiv:2209.11895"
_THOUGHTS = "Bogdan et al. 2025, arXiv:2506.19143"
_MASSIVE = "Sun et al. 2024, arXiv:2402.17762"

_HEAD = ("layer", "head")
_QUERY = ("layer", "head", "query")
_KEY = ("layer", "head", "key")

CATALOG: tuple[Metric, ...] = (
    Metric(
        name="waad",
        title="Windowed average attention distance",
        unit="tokens",
        axes=_QUERY,
        bounds=(0.0, "window"),
        needs=("positions", "shares"),
        paper=f"{_RHYTHM}, definition 4.1",
        measure=of_attention(waad),
        options={"window": 10},
    ),
    Metric(
        name="fai",
        title="Future attention influence",
        axes=_KEY,
        bounds=(0.0, 1.0),
        needs=("positions", "shares"),
        paper=f"{_RHYTHM}, definition 4.2",
        measure=of_response(fai),
        options={"near": 10, "far": 50, "queries": None},
    ),
    Metric(
        name="head_span",
        title="Head span",
        unit="tokens",
        axes=_HEAD,
        bounds=(0.0, None),
        needs=("positions", "shares"),
        paper=f"{_RHYTHM}, equation 7",
        measure=of_response(head_span),
        rides=(key_position,),
        options={"queries": None, "drop": ()},
    ),
    Metric(
        name="mean_distance",
        title="Mean attention distance",
        unit="tokens",
        axes=_HEAD,
        bounds=(0.0, None),
        needs=("positions", "shares"),
        paper=_VIT,
        measure=of_attention(mean_distance),
        rides=(key_position,),
        options={"queries": None},
    ),
    Metric(
        name="window_mass",
        title="Attention within a window",
        axes=_QUERY,
        bounds=(0.0, 1.0),
        needs=("positions", "shares"),
        paper="our own measure",
        measure=of_attention(window_mass),
        options={"radius": 10},
    ),
    Metric(
        name="received_attention",
        title="Received attention",
        axes=_KEY,
        bounds=(0.0, 1.0),
        needs=("shares",),
        paper=_SINK,
        measure=of_attention(received_attention),
    ),
    Metric(
        name="sink_mass",
        title="Attention to the sink",
        axes=_HEAD,
        bounds=(0.0, 1.0),
        needs=("shares",),
        paper="Xiao et al. 2023, arXiv:2309.17453, section 3.1",
        measure=of_attention(sink_mass),
        options={"keys": (0,), "queries": None},
    ),
    Metric(
        name="sink_rate",
        title="Sink rate",
        unit="%",
        axes=("layer",),
        bounds=(0.0, 100.0),
        needs=("shares",),
        paper=_SINK,
        measure=sink_rate_of,
        options={"key": 0, "threshold": 0.3},
    ),
    Metric(
        name="entropy",
        title="Attention entropy",
        unit="nats",
        axes=_QUERY,
        bounds=(0.0, None),
        needs=("distribution",),
        paper=_ENTROPY,
        measure=of_attention(attention_entropy),
    ),
    Metric(
        name="normalized_entropy",
        title="Attention entropy, share of the largest",
        axes=_QUERY,
        bounds=(0.0, 1.0),
        needs=("distribution",),
        paper=_ENTROPY,
        measure=of_attention(normalized_entropy),
    ),
    Metric(
        name="participation_ratio",
        title="Effective number of keys",
        unit="keys",
        axes=_QUERY,
        bounds=(1.0, None),
        needs=("shares",),
        paper="our own measure",
        measure=of_attention(participation_ratio),
    ),
    Metric(
        name="row_sum",
        title="Row sum",
        axes=_QUERY,
        paper="our own measure",
        measure=of_attention(row_sum),
    ),
    Metric(
        name="negative_share",
        title="Negative share",
        axes=_QUERY,
        bounds=(0.0, 1.0),
        paper="our own measure",
        measure=of_attention(negative_share),
    ),
    Metric(
        name="own_share",
        title="Attention to the own position",
        axes=_QUERY,
        bounds=(0.0, 1.0),
        needs=("positions",),
        paper="our own measure",
        measure=of_attention(own_share),
    ),
    Metric(
        name="previous_token",
        title="Previous-token score",
        axes=_HEAD,
        bounds=(0.0, 1.0),
        needs=("positions", "shares"),
        paper=_INDUCTION,
        measure=previous_token_of,
        options={"queries": None},
    ),
    Metric(
        name="duplicate_token",
        title="Duplicate-token score",
        axes=_HEAD,
        bounds=(0.0, 1.0),
        needs=("positions", "shares", "ids"),
        paper="Wang et al. 2022, arXiv:2211.00593",
        measure=duplicate_token_of,
        options={"queries": None},
    ),
    Metric(
        name="induction",
        title="Induction score",
        axes=_HEAD,
        bounds=(0.0, 1.0),
        needs=("positions", "shares", "ids"),
        paper=f"{_INDUCTION}, prefix matching",
        measure=induction_of,
        options={"queries": None},
    ),
    Metric(
        name="vertical_score",
        title="Vertical attention score",
        axes=("layer", "head", "sentence"),
        bounds=(0.0, 1.0),
        needs=("positions", "shares"),
        paper=_THOUGHTS,
        measure=vertical_score_of,
        labels=sentence_labels,
        options={"sentences": None, "proximity": 4},
    ),
    Metric(
        name="receiver_score",
        title="Receiver score",
        axes=_HEAD,
        bounds=(-2.0, None),
        needs=("positions", "shares"),
        paper=_THOUGHTS,
        measure=receiver_score_of,
        options={"sentences": None, "proximity": 4},
    ),
    *IMAGE_CATALOG,
    Metric(
        name="largest_activation",
        title="Largest activations",
        axes=("layer", "rank"),
        bounds=(0.0, None),
        needs=("hidden",),
        paper=_MASSIVE,
        measure=of_hidden(largest_activations),
        options={"count": 3},
    ),
    Metric(
        name="head_divergence",
        title="Divergence between heads",
        unit="nats",
        axes=("layer", "head", "other_head"),
        bounds=(0.0, math.log(2)),
        needs=("distribution",),
        paper="Roy et al. 2021, arXiv:2003.05997",
        measure=of_attention(divergence_of_heads),
        options={"queries": None, "most": 256},
    ),
    Metric(
        name="median_activation",
        title="Median activation",
        axes=("layer",),
        bounds=(0.0, None),
        needs=("hidden",),
        paper=_MASSIVE,
        measure=of_hidden(median_activation),
    ),
    Metric(
        name="massive_activation",
        title="Massive activations",
        axes=("layer", "token"),
        bounds=(0.0, None),
        needs=("hidden",),
        paper=_MASSIVE,
        measure=massive_activations_of,
        options={"threshold": 100.0, "ratio": 1000.0, "tolerance": 0.0},
    ),
    *TRACE_CATALOG,
)
"""Every metric, in the order in which screens list them."""

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in CATALOG})
"""The metrics by name."""


def find_metric(metric: str | Metric) -> Metric:
    """Return the metric of a name; a metric is returned as it is.

    Raises:
        MetricError: The catalog has no such metric.
    """
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise MetricError(f"no metric {metric!r}; the catalog has {sorted(METRICS)}")
    return METRICS[metric]
