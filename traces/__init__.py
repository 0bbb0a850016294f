"""Traces: what was captured, on which tokens, from which model."""

from attnscope.traces.atomic_file import replacement
from attnscope.traces.errors import TraceError
from attnscope.traces.provenance import Provenance
from attnscope.traces.reader import open_trace
from attnscope.traces.segments import Segment, Segments, TokenSequence
from attnscope.traces.site import Observation, Site
from attnscope.traces.trace import Trace

__all__ = [
    "Observation",
    "Provenance",
    "Segment",
    "Segments",
    "Site",
    "TokenSequence",
    "Trace",
    "TraceError",
    "open_trace",
    "replacement",
]
