"""Metrics: pure functions of attention operators and traces, and the catalog that names them."""

from attnscope.metrics.caption_objects import CaptionScores, chair
from attnscope.metrics.catalog import CATALOG, METRICS, find_metric
from attnscope.metrics.coupling import Coupling, RhythmCoupling, rhythm_coupling
from attnscope.metrics.detectors import (
    detector_score,
    duplicate_token_mass,
    induction_mass,
    pattern_share_score,
    previous_token_mass,
)
from attnscope.metrics.entropy import attention_entropy, normalized_entropy, participation_ratio
from attnscope.metrics.errors import MetricError
from attnscope.metrics.future_influence import fai
from attnscope.metrics.head_divergence import divergence_between, divergence_of_heads
from attnscope.metrics.head_grouping import HeadGroups, group_mean, head_groups
from attnscope.metrics.head_output import head_outputs
from attnscope.metrics.head_rhythm import Rhythm, rhythm
from attnscope.metrics.kept_readings import kept_reading
from attnscope.metrics.locality import mean_distance, window_mass
from attnscope.metrics.mass import negative_share, own_share, row_sum
from attnscope.metrics.massive import largest_activations, massive_activations, median_activation
from attnscope.metrics.measuring import Accumulator, measure, readings_of
from attnscope.metrics.metric import Metric, Streamed
from attnscope.metrics.object_mentions import (
    annotated_objects,
    mentioned_objects,
    qualified_names,
    read_synonyms,
)
from attnscope.metrics.output_keys import after_image_keys, previous_token_keys, response_keys
from attnscope.metrics.patch_locality import (
    nonlocality,
    patch_distance,
    patch_window_mass,
    relative_nonlocality,
)
from attnscope.metrics.peaks import local_peaks
from attnscope.metrics.polling import PollScores, pope, says_yes
from attnscope.metrics.preplan_anchor import anchor_tokens, preplan_tokens, waad_change
from attnscope.metrics.reading import Reading
from attnscope.metrics.receiver import (
    receiver_heads,
    receiver_score,
    sentence_attention,
    vertical_scores,
)
from attnscope.metrics.relevance import (
    chefer_relevance,
    cross_relevance,
    gradient_rollout,
    positive_gradient,
)
from attnscope.metrics.relevance_of_traces import trace_relevance
from attnscope.metrics.relevance_rules import (
    co_attention_rule,
    normalized_relevance,
    self_attention_rule,
)
from attnscope.metrics.resampling import ImageScores, confidence_table, paired_difference
from attnscope.metrics.rhythm_preset import RHYTHM_REV, RHYTHM_V1, RhythmPreset, middle_layers
from attnscope.metrics.rollout import attention_rollout
from attnscope.metrics.saliency import (
    NormScope,
    candidate_saliency,
    layer_saliency,
    saliency_norm,
    saliency_rows,
    saliency_threshold,
)
from attnscope.metrics.segment_attention import attention_to_segments
from attnscope.metrics.selection import share_count, top_count, top_share
from attnscope.metrics.sentences import sentence_spans
from attnscope.metrics.sink import received_attention, sink_mass, sink_rate
from attnscope.metrics.spans import head_span, look_back
from attnscope.metrics.stacks import across_stacks
from attnscope.metrics.trace_coupling import coupling_of
from attnscope.metrics.vision_divergence import (
    head_activation,
    token_vhd,
    vision_aware_heads,
    vision_head_divergence,
    zero_outliers,
)
from attnscope.metrics.visual_sink import (
    find_sink_dimensions,
    image_attention,
    image_centric_heads,
    require_reachable,
    scaled_tau,
    sink_dimension_value,
    sink_tokens,
    visual_nonsink_ratio,
)
from attnscope.metrics.windowed_distance import waad

__all__ = [
    "CATALOG",
    "METRICS",
    "RHYTHM_REV",
    "RHYTHM_V1",
    "Accumulator",
    "CaptionScores",
    "Coupling",
    "HeadGroups",
    "ImageScores",
    "Metric",
    "MetricError",
    "NormScope",
    "PollScores",
    "Reading",
    "Rhythm",
    "RhythmCoupling",
    "RhythmPreset",
    "Streamed",
    "across_stacks",
    "after_image_keys",
    "anchor_tokens",
    "annotated_objects",
    "attention_entropy",
    "attention_rollout",
    "attention_to_segments",
    "candidate_saliency",
    "chair",
    "chefer_relevance",
    "co_attention_rule",
    "confidence_table",
    "coupling_of",
    "cross_relevance",
    "detector_score",
    "divergence_between",
    "divergence_of_heads",
    "duplicate_token_mass",
    "fai",
    "find_metric",
    "find_sink_dimensions",
    "gradient_rollout",
    "group_mean",
    "head_activation",
    "head_groups",
    "head_outputs",
    "head_span",
    "image_attention",
    "image_centric_heads",
    "induction_mass",
    "kept_reading",
    "largest_activations",
    "layer_saliency",
    "local_peaks",
    "look_back",
    "massive_activations",
    "mean_distance",
    "measure",
    "median_activation",
    "mentioned_objects",
    "middle_layers",
    "negative_share",
    "nonlocality",
    "normalized_entropy",
    "normalized_relevance",
    "own_share",
    "paired_difference",
    "participation_ratio",
    "patch_distance",
    "patch_window_mass",
    "pattern_share_score",
    "pope",
    "positive_gradient",
    "preplan_tokens",
    "previous_token_keys",
    "previous_token_mass",
    "qualified_names",
    "read_synonyms",
    "readings_of",
    "received_attention",
    "receiver_heads",
    "receiver_score",
    "relative_nonlocality",
    "require_reachable",
    "response_keys",
    "rhythm",
    "rhythm_coupling",
    "row_sum",
    "saliency_norm",
    "saliency_rows",
    "saliency_threshold",
    "says_yes",
    "scaled_tau",
    "self_attention_rule",
    "sentence_attention",
    "sentence_spans",
    "share_count",
    "sink_dimension_value",
    "sink_mass",
    "sink_rate",
    "sink_tokens",
    "token_vhd",
    "top_count",
    "top_share",
    "trace_relevance",
    "vertical_scores",
    "vision_aware_heads",
    "vision_head_divergence",
    "visual_nonsink_ratio",
    "waad",
    "waad_change",
    "window_mass",
    "zero_outliers",
]
