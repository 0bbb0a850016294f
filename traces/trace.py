"""`Trace`: what was captured of one run of a model."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor

from attnscope.traces.card import Card
from attnscope.traces.content import Content
from attnscope.traces.display import describe, to_html
from attnscope.traces.errors import MissingSiteError, TraceError
from attnscope.traces.observations import HeldSource, Observations
from attnscope.traces.provenance import Provenance
from attnscope.traces.segments import Segments, TokenSequence
from attnscope.traces.site import Observation, Site
from attnscope.traces.site_checks import check_held, check_sites
from attnscope.traces.site_operators import SiteOperators, layer_numbers, resolve_layer
from attnscope.traces.stored_reading import StoredReading
from attnscope.traces.writer import write_trace

__all__ = ["Trace"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Trace:
    """One run of a model over one sequence (or one pair of them), without a batch axis.

    It holds the factors of every attention map that was captured, never the maps. Opened from a
    file it reads them when they are asked for; then its tensors are the file's pages, which cost
    no memory of the process.

    Attributes:
        observations: What was seen at each attention site, in order of execution.
        sequences: The sequences that the sites' queries and keys are positions of, by name.
        main_sequence: Name of the one that the model speaks or reads.
        log_probabilities: `[t]` is the log-probability of token t given the tokens before it, in
            nats; NaN at 0.
        entropies: `[t]` is the entropy of the distribution that token t was drawn from, in nats;
            NaN at 0.
        provenance: Model, versions, and what the gradients are of.
        readings: What metrics found, kept with the trace, by the names that they were given.
        card: What the numbers are and what proves it; unknown where nobody wrote it down.

    Raises:
        TraceError: The parts do not fit each other.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> text = TokenSequence(name="text", tokens=("to", "be"))
        >>> site = Site(stack="model.layers", layer=0, path="model.layers.0")
        >>> pattern = DenseAttention(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
        >>> seen = Observation(site=site, attention=pattern, queries=text, keys=text)
        >>> Trace(observations=[seen], sequences={"text": text}, main_sequence="text")
        Trace of an unnamed model: 1 attention sites, 16 bytes
          text: 2 x token
          model.layers: layers 0, 1 heads, 2 x 2, DenseAttention
          card: unknown (the trace does not say what its numbers are)
    """

    observations: Observations | Sequence[Observation]
    sequences: Mapping[str, TokenSequence]
    main_sequence: str
    log_probabilities: Float[Tensor, " token"] | None = None
    entropies: Float[Tensor, " token"] | None = None
    provenance: Provenance = field(default_factory=Provenance)
    readings: Mapping[str, StoredReading] = field(default_factory=dict)
    card: Card = field(default_factory=Card)

    def __post_init__(self) -> None:
        """Keep copies of the collections that nobody can change; refuse parts that do not fit."""
        if not isinstance(self.observations, Observations):
            held = tuple(self.observations)
            check_held(held, self.sequences)
            object.__setattr__(self, "observations", Observations(HeldSource(held)))
        object.__setattr__(self, "sequences", MappingProxyType(dict(self.sequences)))
        object.__setattr__(self, "readings", MappingProxyType(dict(self.readings)))
        if self.sites:  # a trace of readings alone keeps the card of what they were measured on
            object.__setattr__(self, "card", self.card.of(self.sites))
        if self.main_sequence not in self.sequences:
            raise TraceError(
                f"no sequence {self.main_sequence!r}; this trace has {list(self.sequences)}"
            )
        for name in ("log_probabilities", "entropies"):
            vector = getattr(self, name)
            if vector is not None and vector.shape != (len(self.tokens),):
                raise TraceError(
                    f"{name} has shape {tuple(vector.shape)}; there are {len(self.tokens)} tokens"
                )
        check_sites(self.observed.summaries, self.sequences)

    @property
    def observed(self) -> Observations:
        """Return the observations as the view that knows each site before reading it."""
        if not isinstance(self.observations, Observations):
            raise TypeError("observations are wrapped when a trace is built")
        return self.observations

    # --- what there is ----------------------------------------------------------------------

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return the tokens of the main sequence."""
        return self.sequences[self.main_sequence].tokens

    @property
    def segments(self) -> Segments:
        """Return the segments of the main sequence."""
        return self.sequences[self.main_sequence].segments

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the sites in order of execution, without reading a tensor."""
        return tuple(summary.site for summary in self.observed.summaries)

    @property
    def stacks(self) -> tuple[str, ...]:
        """Return the stacks in order of execution."""
        return tuple(dict.fromkeys(site.stack for site in self.sites))

    @property
    def main_stack(self) -> str:
        """Return the first stack in which the main sequence reads itself, or else the first one.

        Raises:
            TraceError: The trace holds no site.
        """
        sites = self.sites
        if not sites:
            raise MissingSiteError("this trace holds no attention site")
        spoken = (site for site in sites if site.reads_itself(self.main_sequence))
        return next(spoken, sites[0]).stack

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors, shared ones counted once; of a file none is read."""
        vectors = (
            self.log_probabilities,
            self.entropies,
            *(reading.values for reading in self.readings.values()),
        )
        own = sum(v.numel() * v.element_size() for v in vectors if v is not None)
        return own + self.observed.nbytes

    # --- what was seen ----------------------------------------------------------------------

    @property
    def attention(self) -> SiteOperators:
        """Return the attention operators, by layer (of the main stack) or by (stack, layer)."""
        observed = self.observed
        main = self.main_stack if self.sites else None
        return SiteOperators("attention", observed.summaries, main, observed.attention)

    @property
    def gradient(self) -> SiteOperators:
        """Return dL/dA where it was captured, signed and of low rank, by the same keys."""
        observed = self.observed
        known = [summary if summary.has_gradient else None for summary in observed.summaries]
        main = self.main_stack if self.sites else None
        return SiteOperators("gradient", known, main, observed.gradient)

    def observe(self, stack: str | None = None) -> Iterator[Observation]:
        """Yield the observations of one stack (by default the main one), layer by layer.

        Raises:
            TraceError: The trace holds no such stack.
        """
        return iter(self.select(stack=stack or self.main_stack).observations)

    def select(
        self, layers: int | Iterable[int] | None = None, stack: str | None = None
    ) -> "Trace":
        """Return the trace of some sites only, reading none.

        Args:
            layers: Layers to keep, of each stack that has them; negative ones count from the end.
            stack: The stack to keep; by default every one.

        Raises:
            TraceError: The trace holds no such stack, or none of its stacks such a layer.
        """
        stacks = layer_numbers((site.stack, site.layer) for site in self.sites)
        if stack is not None and stack not in stacks:
            raise MissingSiteError(f"no stack {stack!r}; this trace has {list(stacks)}")
        kept = stacks if stack is None else {stack: stacks[stack]}
        if layers is not None:
            kept = _keep(kept, [layers] if isinstance(layers, int) else list(layers))
        observed = self.observed
        chosen = [
            observed.chosen[index]
            for index, site in enumerate(self.sites)
            if site.layer in kept.get(site.stack, ())
        ]
        return replace(self, observations=Observations(observed.source, chosen))

    # --- where it goes ----------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace to one `.safetensors` file, complete or not at all.

        Raises:
            TraceError: An operator cannot be stored, or the path cannot be written.
        """
        vectors = {"log_probabilities": self.log_probabilities, "entropies": self.entropies}
        content = Content(
            sequences=tuple(self.sequences.values()),
            main_sequence=self.main_sequence,
            provenance=self.provenance,
            card=self.card,
        )
        write_trace(Path(path), content, self.observed, vectors, self.readings)

    def __repr__(self) -> str:
        """Return the model, the tokens, and the layers and heads of each stack."""
        summaries = self.observed.summaries
        return describe(self.provenance, self.sequences, summaries, self.nbytes, self.card)

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks."""
        summaries = self.observed.summaries
        return to_html(self.provenance, self.sequences, summaries, self.nbytes, self.card)


def _keep(stacks: Mapping[str, list[int]], layers: list[int]) -> dict[str, set[int]]:
    """Return the layers of each stack that were asked for, each of them in one stack at least."""
    kept: dict[str, set[int]] = {stack: set() for stack in stacks}
    for layer in layers:
        holders = [
            stack for stack, known in stacks.items() if layer in known or -len(known) <= layer < 0
        ]
        if not holders:
            raise MissingSiteError(f"no layer {layer}; this trace has {dict(stacks)}")
        for stack in holders:
            kept[stack].add(resolve_layer(layer, stacks[stack], stack))
    return kept
