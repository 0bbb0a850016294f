"""`Observations`: what a trace saw, site by site, held in memory or read from a file on demand."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

from torch import Tensor

from attnscope.attention import AttentionOperator, OperatorError, OuterAttention
from attnscope.traces.errors import TraceError
from attnscope.traces.site import Observation, Site

__all__ = ["HeldSource", "Observations", "SiteSummary", "Source", "identity", "summarize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSummary:
    """What is known of a site before any of its tensors is read.

    Attributes:
        site: Where it is.
        kind: Class name of the operator.
        shape: Heads, queries and keys.
        causal: Whether a query never reads a key behind its own position.
        offset: Key index at the position of query 0; None where there is none.
        axes: What a query and a key are.
        has_gradient: Whether dL/dz and the values are known, and with them dL/dA.
    """

    site: Site
    kind: str
    shape: tuple[int, int, int]
    causal: bool
    offset: int | None
    axes: tuple[str, str]
    has_gradient: bool


@runtime_checkable
class Source(Protocol):
    """Where observations come from."""

    @property
    def summaries(self) -> tuple[SiteSummary, ...]:
        """Return what is known without reading a tensor, in order of execution."""
        ...

    def sizes(self, index: int) -> Mapping[Hashable, int]:
        """Return the bytes of each tensor of a site, by an identity that shared tensors share."""
        ...

    def observation(self, index: int) -> Observation:
        """Return all that is known of a site."""
        ...

    def attention(self, index: int, heads: Sequence[int] | None) -> AttentionOperator:
        """Return the operator of a site, of all heads or of some."""
        ...

    def gradient(self, index: int, heads: Sequence[int] | None) -> OuterAttention:
        """Return dL/dA of a site, of all heads or of some."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class HeldSource:
    """Observations in memory."""

    held: tuple[Observation, ...]

    @property
    def summaries(self) -> tuple[SiteSummary, ...]:
        """Return what the operators say of themselves."""
        return tuple(summarize(observation) for observation in self.held)

    def sizes(self, index: int) -> Mapping[Hashable, int]:
        """Return the bytes of the tensors that a file would hold; a combination counts as none."""
        observation = self.held[index]
        try:
            tensors = list(observation.attention.parts()[0].values())
        except OperatorError:
            tensors = []
        fields = (observation.value, observation.gradient, observation.hidden)
        tensors += [tensor for tensor in fields if tensor is not None]
        return {identity(tensor): tensor.numel() * tensor.element_size() for tensor in tensors}

    def observation(self, index: int) -> Observation:
        """Return the observation itself."""
        return self.held[index]

    def attention(self, index: int, heads: Sequence[int] | None) -> AttentionOperator:
        """Return the operator, or the selection of heads that it makes itself."""
        attention = self.held[index].attention
        return attention if heads is None else attention.select_heads(heads)

    def gradient(self, index: int, heads: Sequence[int] | None) -> OuterAttention:
        """Return the product of the held factors."""
        observation = self.held[index]
        if observation.gradient is None or observation.value is None:
            raise TraceError(f"layer {observation.site.layer} holds no gradient")
        gradient = OuterAttention(
            observation.gradient,
            observation.value,
            offset=observation.attention.offset,
            query_axis=observation.attention.query_axis,
            key_axis=observation.attention.key_axis,
        )
        return gradient if heads is None else gradient.select_heads(heads)


def summarize(observation: Observation) -> SiteSummary:
    """Return what an observation says without its tensors' content."""
    attention = observation.attention
    heads, queries, keys = attention.shape
    return SiteSummary(
        site=observation.site,
        kind=type(attention).__name__,
        shape=(heads, queries, keys),
        causal=attention.causal,
        offset=attention.offset,
        axes=(attention.query_axis, attention.key_axis),
        has_gradient=observation.gradient is not None and observation.value is not None,
    )


def identity(tensor: Tensor) -> Hashable:
    """Return what two views of the same numbers have in common, while both live."""
    place = tensor.data_ptr(), tensor.device, tensor.dtype, tensor.is_neg()
    return *place, tensor.shape, tensor.stride()


class Observations(Sequence):
    """Some observations of a source, in order; a file's are read when they are asked for.

    The base names no type of item: a type checker at run time would read one to look at it.
    """

    def __init__(self, source: Source, chosen: Sequence[int] | None = None) -> None:
        every = source.summaries
        self.source = source
        self.chosen = tuple(range(len(every)) if chosen is None else chosen)
        self.summaries = tuple(every[index] for index in self.chosen)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> Observation: ...
    @overload
    def __getitem__(self, index: slice) -> "Observations": ...
    def __getitem__(self, index: int | slice) -> "Observation | Observations":
        """Return one observation, reading it where it is stored, or the ones of a slice unread."""
        if isinstance(index, slice):
            return Observations(self.source, self.chosen[index])
        return self.source.observation(self.chosen[index])

    def __iter__(self) -> Iterator[Observation]:
        """Yield the observations one after the other."""
        return (self.source.observation(index) for index in self.chosen)

    def __repr__(self) -> str:
        """Return how many sites there are."""
        return f"Observations({len(self)} sites)"

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors, each counted once however many sites share it."""
        sizes: dict[Hashable, int] = {}
        for index in self.chosen:
            sizes.update(self.source.sizes(index))
        return sum(sizes.values())

    def attention(self, index: int, heads: Sequence[int] | None = None) -> AttentionOperator:
        """Return the operator of a site, of all heads or of some."""
        return self.source.attention(self.chosen[index], heads)

    def gradient(self, index: int, heads: Sequence[int] | None = None) -> OuterAttention:
        """Return dL/dA of a site, of all heads or of some."""
        return self.source.gradient(self.chosen[index], heads)
