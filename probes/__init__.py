"""Probes: run a model once and record what its attention did."""

from attnscope.probes.collector import Collector, Recorder, Run
from attnscope.probes.encoding import Chat, Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.lens_cache import LensCache
from attnscope.probes.loading import load
from attnscope.probes.recorder import capture, capture_each
from attnscope.probes.streaming import Measuring
from attnscope.probes.subject import Inputs, Subject
from attnscope.probes.targets import Logit, LogitDifference, Target, TokenLoss
from attnscope.probes.verification import verify

__all__ = [
    "CaptureError",
    "Chat",
    "Collector",
    "Encoded",
    "Inputs",
    "LensCache",
    "Logit",
    "LogitDifference",
    "Measuring",
    "Recorder",
    "Run",
    "Subject",
    "Target",
    "TokenLoss",
    "capture",
    "capture_each",
    "load",
    "verify",
]
