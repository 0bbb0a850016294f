"""Recorders: what becomes of the observations of a capture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import KeyFunction
from attnscope.traces import (
    Card,
    Observation,
    Provenance,
    SiteCard,
    TokenSequence,
    Trace,
    site_card,
)

__all__ = ["Collector", "Recorder", "Run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of a forward pass besides its attention.

    Attributes:
        sequences: All sequences by name.
        main_sequence: The one that the model speaks.
        log_probabilities: `log p(token | tokens before it)`, NaN at 0; None where the logits are
            not of next tokens.
        entropies: Entropy of the distribution that each token was drawn from, NaN at 0.
        told: Says where the numbers come from. It looks at all weights, so it is asked only where
            the answer is kept.
        origins: Whose modules were heard at each site, and what computed the attention there.
    """

    sequences: Mapping[str, TokenSequence]
    main_sequence: str
    log_probabilities: Float[Tensor, " token"] | None
    entropies: Float[Tensor, " token"] | None
    told: Callable[[], Provenance]
    origins: Mapping[tuple[str, int], tuple[str, str]] = field(default_factory=dict)

    @property
    def provenance(self) -> Provenance:
        """Return model, versions and gradient target."""
        return self.told()


@runtime_checkable
class Recorder(Protocol):
    """Something that observations are handed to, one at a time, while a model runs."""

    @property
    def needs(self) -> frozenset[str]:
        """Return what has to be observed besides attention.

        `gradient` of one number, or `gradients` of each of several; `hidden`, `logits`.
        """
        ...

    @property
    def riders(self) -> tuple[KeyFunction, ...]:
        """Return the moments that the model's own fused calls should bring along."""
        ...

    def start(self) -> None:
        """Forget any earlier capture."""
        ...

    def record(self, observation: Observation) -> None:
        """Take what was seen at one site."""
        ...

    def finish(self, run: Run) -> Any:
        """Return the result of the capture."""
        ...


class Collector:
    """Keeps every observation, as a `Trace`.

    Args:
        hidden: Keep the residual stream that enters each layer, too.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        self.needs = frozenset({"logits", "hidden"} if hidden else {"logits"})
        self.riders: tuple[KeyFunction, ...] = ()
        self._observations: list[Observation] = []

    def start(self) -> None:
        """Forget any earlier capture."""
        self._observations = []

    def record(self, observation: Observation) -> None:
        """Keep an observation; its value no longer hangs on the model's larger buffers."""
        value = observation.value
        self._observations.append(
            replace(observation, value=None if value is None else _own(value))
        )

    def finish(self, run: Run) -> Trace:
        """Return the trace."""
        observations, self._observations = self._observations, []
        return Trace(
            observations=observations,
            sequences=run.sequences,
            main_sequence=run.main_sequence,
            log_probabilities=run.log_probabilities,
            entropies=run.entropies,
            provenance=run.provenance,
            card=Card(sites={_key(one): _site_card(one, run) for one in observations}),
        )


def _key(observation: Observation) -> tuple[str, int]:
    return observation.site.stack, observation.site.layer


def _site_card(observation: Observation, run: Run) -> SiteCard:
    library, computation = run.origins.get(_key(observation), ("", ""))
    return site_card(observation.attention, library=library, computation=computation)


def _own(tensor: Tensor) -> Tensor:
    """Return a tensor with storage of its own size, copied only if it views a larger one."""
    tensor = tensor.contiguous()
    whole = tensor.untyped_storage().nbytes() <= tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()
