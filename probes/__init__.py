"""Probes: run a model once and record what its attention did."""

from attnscope.probes.collector import Collector, Recorder, Run
from attnscope.probes.encoding import Chat, Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.image_removal import (
    Removal,
    with_blank_image,
    with_noise_image,
    without_image,
)
from attnscope.probes.lens_cache import LensCache
from attnscope.probes.loading import load
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

__all__ = [
    "CaptureError",
    "Chat",
    "Collector",
    "Encoded",
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
    "capture",
    "capture_each",
    "heads_by_vision",
    "image_contrast",
    "load",
    "response_saliency",
    "saliency_maps",
    "token_divergence",
    "verify",
    "with_blank_image",
    "with_noise_image",
    "without_image",
]
