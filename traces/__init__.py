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
from attnscope.traces.store import TraceStore
from attnscope.traces.store_deposit import Deposit
from attnscope.traces.store_event import RunFacts
from attnscope.traces.store_log import Fold
from attnscope.traces.store_readings import stored_readings
from attnscope.traces.store_repair import (
    Survey,
    adopt_orphans,
    check_store,
    repair_store,
    set_orphans_aside,
    survey_store,
)
from attnscope.traces.stored_reading import StoredReading
from attnscope.traces.trace import Trace
from attnscope.traces.verification import Check, Verification

__all__ = [
    "Card",
    "Check",
    "Deposit",
    "Fold",
    "Observation",
    "Provenance",
    "RunFacts",
    "Segment",
    "Segments",
    "Site",
    "SiteCard",
    "StoreError",
    "StoredReading",
    "Survey",
    "TokenSequence",
    "Trace",
    "TraceError",
    "TraceStore",
    "Verification",
    "adopt_orphans",
    "check_store",
    "open_trace",
    "reduce",
    "repair_store",
    "replacement",
    "set_orphans_aside",
    "site_card",
    "stored_readings",
    "survey_store",
]
