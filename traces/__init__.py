"""Traces: what was captured, on which tokens, from which model."""

from attnscope.traces.atomic_file import replacement
from attnscope.traces.card import Card
from attnscope.traces.errors import StoreError, TraceError
from attnscope.traces.provenance import Provenance
from attnscope.traces.reader import open_trace
from attnscope.traces.reduction import reduce
from attnscope.traces.segments import Segment, Segments, TokenSequence
from attnscope.traces.site import Observation, Site
from attnscope.traces.site_facts import SiteCard, site_card
from attnscope.traces.stored_reading import StoredReading
from attnscope.traces.trace import Trace
from attnscope.traces.verification import Check, Verification

__all__ = [
    "Card",
    "Check",
    "Observation",
    "Provenance",
    "Segment",
    "Segments",
    "Site",
    "SiteCard",
    "StoreError",
    "StoredReading",
    "TokenSequence",
    "Trace",
    "TraceError",
    "Verification",
    "open_trace",
    "reduce",
    "replacement",
    "site_card",
]
