"""`StoredSource`: observations that are read from a trace file when they are asked for."""

from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from attnscope.attention import OPERATORS, AttentionOperator, OuterAttention
from attnscope.traces.container import Container
from attnscope.traces.content import Content, SiteRecord
from attnscope.traces.errors import TraceError
from attnscope.traces.observations import SiteSummary
from attnscope.traces.site import Observation
from attnscope.traces.site_checks import check_factors

__all__ = ["StoredSource"]

_FIELDS = ("value", "gradient", "hidden")


class StoredSource:
    """The observations of a trace file.

    An operator is built once and then kept: its tensors are views of the file and take no memory
    of their own, and what it remembers of its statistics is worth keeping.
    """

    def __init__(self, container: Container, content: Content) -> None:
        self._container, self._records = container, content.records
        self._sequences = {sequence.name: sequence for sequence in content.sequences}
        self._operators: dict[int, AttentionOperator] = {}
        _check_names(container, content)

    @property
    def summaries(self) -> tuple[SiteSummary, ...]:
        """Return what the header says of the sites."""
        return tuple(record.summary for record in self._records)

    def sizes(self, index: int) -> Mapping[Hashable, int]:
        """Return the bytes of each tensor of a site, by its name in the file."""
        record, entries = self._records[index], self._container.entries
        names = (*record.parts.values(), *record.fields.values())
        return {name: entries[name].nbytes for name in names}

    def observation(self, index: int) -> Observation:
        """Read and check everything that is known of a site."""
        record = self._records[index]
        return Observation(
            site=record.summary.site,
            attention=self.attention(index, None),
            queries=self._sequences[record.summary.site.query_sequence],
            keys=self._sequences[record.summary.site.key_sequence],
            **{name: self._container.tensor(stored) for name, stored in record.fields.items()},
        )

    def attention(self, index: int, heads: Sequence[int] | None) -> AttentionOperator:
        """Read and check the operator of a site; of some heads, only their factors."""
        if heads is not None and index not in self._operators:
            return self._operator(self._records[index], heads).select_heads(heads)
        if index not in self._operators:
            self._operators[index] = self._operator(self._records[index], None)
        whole = self._operators[index]
        return whole if heads is None else whole.select_heads(heads)

    def gradient(self, index: int, heads: Sequence[int] | None) -> OuterAttention:
        """Read and check the factors of dL/dA, of all heads or of some."""
        record = self._records[index]
        summary = record.summary
        query_axis, key_axis = summary.axes
        gradient = OuterAttention(
            self._tensor(record.fields["gradient"], summary, heads),
            self._tensor(record.fields["value"], summary, heads),
            offset=summary.offset,
            query_axis=query_axis,
            key_axis=key_axis,
        )
        return gradient if heads is None else gradient.select_heads(heads)

    def _operator(self, record: SiteRecord, heads: Sequence[int] | None) -> AttentionOperator:
        summary = record.summary
        parts = {part: self._tensor(name, summary, heads) for part, name in record.parts.items()}
        where = f"{self._container.path}: {summary.kind} of {summary.site.path}"
        try:
            operator = OPERATORS[summary.kind].from_parts(parts, record.facts)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TraceError(f"{where} cannot be built from what is stored: {error}") from error
        if tuple(operator.shape) != summary.shape:
            raise TraceError(
                f"{where} should have shape {summary.shape}, not {tuple(operator.shape)}"
            )
        return operator

    def _tensor(self, name: str, summary: SiteSummary, heads: Sequence[int] | None) -> Tensor:
        """Return a tensor, checked where the given heads read it.

        By the order of axes, the leading one of three or more is that of the heads, or of groups
        of heads that share it. The other heads' slices are mapped too, but nobody reads them.
        """
        shape = self._container.entries[name].shape
        count = summary.shape[0]
        if heads is None or len(shape) < 3 or not shape[0] or count % shape[0]:
            return self._container.tensor(name)
        group = count // shape[0]
        return self._container.tensor(name, [head // group for head in heads])


def _check_names(container: Container, content: Content) -> None:
    """Refuse a header whose sites ask for unknown kinds, or for other tensors than there are."""
    asked = {*content.vectors.values(), *(record.values for record in content.readings)}
    for record in content.records:
        if record.summary.kind not in OPERATORS:
            raise TraceError(
                f"holds a {record.summary.kind}, which this attnscope does not know; "
                f"it knows {', '.join(OPERATORS)}"
            )
        if not set(record.fields) <= set(_FIELDS):
            raise TraceError(f"has unknown fields of a site: {list(record.fields)}")
        asked |= {*record.parts.values(), *record.fields.values()}
    stored = set(container.entries)
    if asked != stored:
        names = ", ".join(sorted(asked ^ stored))
        raise TraceError(f"holds other tensors than its header names: {names}")
    for record in content.records:
        value, gradient = (_shape(container, record, name) for name in ("value", "gradient"))
        check_factors(record.summary, value, gradient)
        if record.summary.has_gradient != (value is not None and gradient is not None):
            raise TraceError(f"is not sure whether {record.summary.site.path} has a gradient")


def _shape(container: Container, record: SiteRecord, field: str) -> tuple[int, ...] | None:
    name = record.fields.get(field)
    return None if name is None else container.entries[name].shape
