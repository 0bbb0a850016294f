"""`Worker`: a model that captures items into a store, one commit for every batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from typing import Any

from attnscope.attention import KeyFunction
from attnscope.probes.bulk.item import Item
from attnscope.probes.bulk.plan import Plan
from attnscope.probes.collector import Collector, Run
from attnscope.probes.recorder import capture
from attnscope.probes.streaming import Measuring
from attnscope.probes.subject import Subject
from attnscope.traces import Deposit, Observation, RunFacts, StoredReading, TraceStore

__all__ = ["Outcome", "Worker"]

_ERROR_LENGTH = 2_000
_UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one item.

    Attributes:
        key: The item's key.
        name: What it is called.
        tokens: Tokens of its main sequence; 0 where it failed.
        error: Why it failed; empty where it did not.
    """

    key: str
    name: str
    tokens: int = 0
    error: str = ""


@dataclass(frozen=True)
class Worker:
    """A model and where its captures go; it travels to other processes without the model.

    Attributes:
        load: Returns the model; called where the worker works, once.
        address: The store.
        plan: What to capture of every item.
        options: What the store's file system takes.
    """

    load: Callable[[], Subject]
    address: str
    plan: Plan
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def subject(self) -> Subject:
        """Return the model, loaded when it is first asked for."""
        return self.load()

    @cached_property
    def store(self) -> TraceStore:
        """Return the store."""
        return TraceStore(self.address, **self.options)

    def __call__(self, items: Iterable[tuple[str, Item]]) -> list[Outcome]:
        """Capture items and commit them together, errors among them, and say what became of each.

        Whatever goes wrong with one item, the others are worth it.

        Raises:
            CaptureError: The model cannot be loaded.
        """
        _ = self.subject  # without a model the fault is no item's
        deposits = [self._deposit(key, item) for key, item in items]
        self.store.append(deposits)
        return [_outcome(deposit) for deposit in deposits]

    def _deposit(self, key: str, item: Item) -> Deposit:
        common: dict[str, Any] = {"item": key, "name": item.name, "tags": self.plan.tags}
        try:
            return Deposit(**(common | self._captured(item)))
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Deposit(**common, error=text[:_ERROR_LENGTH])

    def _captured(self, item: Item) -> dict[str, Any]:
        plan, inputs = self.plan, _inputs(self.subject, item, self.plan)
        if plan.metrics:
            recorder = _Reading(plan.metrics)
            return capture(self.subject, inputs, plan.layers, plan.gradient, recorder)
        recorder = Collector(hidden=plan.hidden)
        trace = capture(
            self.subject, inputs, plan.layers, plan.gradient, recorder, verify=plan.verify
        )
        proof = trace.card.verification
        tags = plan.tags if proof is None or proof.passed else (*plan.tags, _UNPROVEN)
        return {"trace": trace, "tags": tags}

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels: neither the model nor an open store."""
        kept = ("load", "address", "plan", "options")
        return {name: getattr(self, name) for name in kept}


class _Reading:
    """Measures a run, and keeps what an index says of it beside the readings."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._measuring = Measuring(*metrics)
        self._sites: dict[tuple[str, int], int] = {}

    @property
    def needs(self) -> frozenset[str]:
        return self._measuring.needs

    @property
    def riders(self) -> tuple[KeyFunction, ...]:
        return self._measuring.riders

    def start(self) -> None:
        self._sites = {}
        self._measuring.start()

    def record(self, observation: Observation) -> None:
        place = observation.site.stack, observation.site.layer
        self._sites[place] = observation.attention.shape[-3]
        self._measuring.record(observation)

    def finish(self, run: Run) -> dict[str, Any]:
        readings = [StoredReading.of(one) for one in self._measuring.finish(run).values()]
        stack = readings[0].stack
        heads = next((count for (own, _), count in self._sites.items() if own == stack), 0)
        sequence = run.sequences.get(run.main_sequence)
        facts = RunFacts.of_run(run.provenance, sequence, len(self._sites), heads)
        return {"readings": readings, "facts": facts}


def _inputs(subject: Subject, item: Item, plan: Plan) -> Any:
    """Return what `capture` takes of an item, its answer generated where the plan says so."""
    answered = item.response is not None or (
        bool(item.messages) and item.messages[-1].get("role") == "assistant"
    )
    pictures = _pictures(item)
    if item.text is None and not item.messages:
        return dict(subject.processor(images=pictures, return_tensors="pt"))
    inputs = list(item.messages) if item.messages else item.text or ""
    if plan.generate and not answered:
        return subject.generate(inputs, images=pictures, max_new_tokens=plan.generate)
    return subject.encode(inputs, response=item.response, images=pictures)


def _pictures(item: Item) -> list[Any]:
    """Return the pictures of an item, opened."""
    if not item.images:
        return []
    from PIL import Image

    return [Image.open(BytesIO(content)) for content in item.images]


def _outcome(deposit: Deposit) -> Outcome:
    if deposit.error:
        return Outcome(key=deposit.item, name=deposit.name, error=deposit.error)
    tokens = deposit.facts.tokens if deposit.facts else 0
    if deposit.trace is not None:
        tokens = len(deposit.trace.tokens)
    return Outcome(key=deposit.item, name=deposit.name, tokens=tokens)
