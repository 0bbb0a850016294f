"""Bulk: a dataset captured into a store, here or on a cluster, and resumed where it stopped."""

from attnscope.probes.bulk.engines import Engine, run_here
from attnscope.probes.bulk.item import BadItem, Item, keyed
from attnscope.probes.bulk.plan import Plan
from attnscope.probes.bulk.ray_engine import RayEngine
from attnscope.probes.bulk.run import Run, capture_dataset
from attnscope.probes.bulk.sources import read_items
from attnscope.probes.bulk.worker import Outcome, Worker

__all__ = [
    "BadItem",
    "Engine",
    "Item",
    "Outcome",
    "Plan",
    "RayEngine",
    "Run",
    "Worker",
    "capture_dataset",
    "keyed",
    "read_items",
    "run_here",
]
