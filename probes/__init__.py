"""Probes: run a model once and record what its attention did."""

from attnscope.probes.attributions import (
    ATTRIBUTIONS,
    Attribution,
    attribute,
    compare_attributions,
    with_attributions,
)
from attnscope.probes.collector import Collector, Recorder, Run
from attnscope.probes.encoding import Chat, Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.faithfulness import (
    FaithfulnessCurve,
    deletion_curve,
    faithfulness_table,
    insertion_curve,
)
from attnscope.probes.image_removal import (
    Removal,
    with_blank_image,
    with_noise_image,
    without_image,
)
from attnscope.probes.input_credit import completeness_gap
from attnscope.probes.lens_cache import LensCache
from attnscope.probes.loading import load
from attnscope.probes.presence import TokenPresence
from attnscope.probes.recorder import capture, capture_each
from attnscope.probes.streaming import Measuring
from attnscope.probes.subject import Inputs, Subject
from attnscope.probes.targets import Logit, LogitDifference, Target, TokenLoss
from attnscope.probes.token_saliency import response_saliency, saliency_maps
from attnscope.probes.token_targets import TokenLogits, TokenLosses
from attnscope.probes.verification import verify
from attnscope.probes.vision_contrast import (
    ImageContrast,
    heads_by_vision,
    image_contrast,
    token_divergence,
)
from attnscope.probes.weight_randomization import cascaded_layers, weight_sensitivity

__all__ = [
    "ATTRIBUTIONS",
    "Attribution",
    "CaptureError",
    "Chat",
    "Collector",
    "Encoded",
    "FaithfulnessCurve",
    "ImageContrast",
    "Inputs",
    "LensCache",
    "Logit",
    "LogitDifference",
    "Measuring",
    "Recorder",
    "Removal",
    "Run",
    "Subject",
    "Target",
    "TokenLogits",
    "TokenLoss",
    "TokenLosses",
    "TokenPresence",
    "attribute",
    "capture",
    "capture_each",
    "cascaded_layers",
    "compare_attributions",
    "completeness_gap",
    "deletion_curve",
    "faithfulness_table",
    "heads_by_vision",
    "image_contrast",
    "insertion_curve",
    "load",
    "response_saliency",
    "saliency_maps",
    "token_divergence",
    "verify",
    "weight_sensitivity",
    "with_attributions",
    "with_blank_image",
    "with_noise_image",
    "without_image",
]
