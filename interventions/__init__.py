"""Interventions: change what attention does while a model runs or generates."""

from attnscope.interventions.activation_edit import ActivationEdit
from attnscope.interventions.agla import AGLA, assembled_logits
from attnscope.interventions.edge_knockout import EdgeKnockout
from attnscope.interventions.errors import InterventionError
from attnscope.interventions.head_reinforcement import VHR, reinforced_heads, reinforced_layers
from attnscope.interventions.head_scaling import HeadAblation, HeadScaling
from attnscope.interventions.image_masking import kept_pixels, mask_image, smooth_relevance
from attnscope.interventions.image_matching import (
    ImageMatch,
    contrastive_similarity,
    match_image,
    match_probability,
    patch_relevance,
)
from attnscope.interventions.informed_tokens import (
    PAINT,
    class_row,
    local_tokens,
    mean_row,
    painted_layers,
    raised_scores,
    summary_tokens,
)
from attnscope.interventions.local_coherence import (
    LocoRE,
    post_softmax_raw,
    post_softmax_renorm,
    pre_softmax_log,
    recent_gain,
)
from attnscope.interventions.places import Place
from attnscope.interventions.positional_gate import PositionalGate
from attnscope.interventions.rejection_step import RejectionStep
from attnscope.interventions.running import intervening
from attnscope.interventions.saliency_rejection import (
    SGRS,
    after_image,
    earlier_outputs,
    saliency_layers,
)
from attnscope.interventions.seams import Intervention, Seams
from attnscope.interventions.standing import Standing
from attnscope.interventions.visual_redistribution import (
    SINK_DIMENSIONS,
    VAR,
    all_but_last,
    redistributed,
)

__all__ = [
    "AGLA",
    "PAINT",
    "SGRS",
    "SINK_DIMENSIONS",
    "VAR",
    "VHR",
    "ActivationEdit",
    "EdgeKnockout",
    "HeadAblation",
    "HeadScaling",
    "ImageMatch",
    "Intervention",
    "InterventionError",
    "LocoRE",
    "Place",
    "PositionalGate",
    "RejectionStep",
    "Seams",
    "Standing",
    "after_image",
    "all_but_last",
    "assembled_logits",
    "class_row",
    "contrastive_similarity",
    "earlier_outputs",
    "intervening",
    "kept_pixels",
    "local_tokens",
    "mask_image",
    "match_image",
    "match_probability",
    "mean_row",
    "painted_layers",
    "patch_relevance",
    "post_softmax_raw",
    "post_softmax_renorm",
    "pre_softmax_log",
    "raised_scores",
    "recent_gain",
    "redistributed",
    "reinforced_heads",
    "reinforced_layers",
    "saliency_layers",
    "smooth_relevance",
    "summary_tokens",
]
