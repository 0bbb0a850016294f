"""attnscope: see, measure and change what attention does.

The public door: load a model, capture its attention, measure it, keep it.
"""

from attnscope.metrics import measure
from attnscope.probes import Subject, capture, capture_each, load
from attnscope.traces import Trace, open_trace

__version__ = "0.1.0"

__all__ = ["Subject", "Trace", "capture", "capture_each", "load", "measure", "open_trace"]
