"""`Mask`: which keys a query may read, as rules on positions instead of a `T x T` array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attnscope.attention.errors import OperatorError

__all__ = ["Mask"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """Rules that hide keys from queries; a key is visible where every rule allows it.

    Query `t` stands at position `t + query_origin`, key `s` at position `s + key_origin`.
    Transposing a mask gives a mask, so columns are computed by the same code as rows.

    Attributes:
        before: Furthest a key may lie behind the query; None for any distance. A sliding window of
            `w` tokens, the query's own included, is `before = w - 1`.
        after: Furthest a key may lie ahead of the query; 0 is causal, None is any distance.
        chunk: Query and key must lie in one chunk of this many positions.
        query_origin: Position of query 0.
        key_origin: Position of key 0.
        key_valid: Which keys exist (false for padding).
        query_valid: Which queries exist.
        query_segment: Packed sequence that each query belongs to.
        key_segment: Packed sequence that each key belongs to; a query sees its own sequence only.
        query_block: Block of each query that sees itself in both directions (the patches of an
            image inside causal text); negative for none.
        key_block: The same for keys. Membership of one block overrides `before`, `after`, `chunk`.
        allowed: Any further restriction, entry by entry, for short sequences.

    Example:
        >>> positions = torch.arange(3)
        >>> Mask(after=0, before=1).tile(positions, positions).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """

    before: int | None = None
    after: int | None = None
    chunk: int | None = None
    query_origin: int = 0
    key_origin: int = 0
    key_valid: Bool[Tensor, "*#batch key"] | None = None
    query_valid: Bool[Tensor, "*#batch query"] | None = None
    query_segment: Int[Tensor, "*#batch query"] | None = None
    key_segment: Int[Tensor, "*#batch key"] | None = None
    query_block: Int[Tensor, "*#batch query"] | None = None
    key_block: Int[Tensor, "*#batch key"] | None = None
    allowed: Bool[Tensor, "*#batch query key"] | None = None

    def __post_init__(self) -> None:
        """Refuse rules that contradict themselves."""
        if self.chunk is not None and self.chunk < 1:
            raise OperatorError(f"mask chunk is {self.chunk}; a chunk holds at least one position")
        for pair in (("query_segment", "key_segment"), ("query_block", "key_block")):
            if (getattr(self, pair[0]) is None) != (getattr(self, pair[1]) is None):
                raise OperatorError(
                    f"a mask takes {pair[0]} and {pair[1]} together; one of them is missing"
                )

    @property
    def offset(self) -> int:
        """Return the key index that lies at the position of query 0."""
        return self.query_origin - self.key_origin

    @property
    def is_causal(self) -> bool:
        """Return whether no key ahead of its query is ever visible."""
        return self.after is not None and self.after <= 0 and self.query_block is None

    @property
    def hides_nothing(self) -> bool:
        """Return whether the mask is no restriction at all."""
        return (
            self.before is None
            and self.after is None
            and self.chunk is None
            and not self._has_tensors
        )

    @property
    def is_plain_causal(self) -> bool:
        """Return whether the mask is the lower triangle and nothing else, with query 0 at key 0."""
        only_causal = self.before is None and self.after == 0 and self.chunk is None
        return only_causal and self.offset == 0 and not self._has_tensors

    @property
    def is_by_distance(self) -> bool:
        """Return whether the distance alone decides what is visible: causality, a window, all."""
        return self.chunk is None and not self._has_tensors

    @property
    def _has_tensors(self) -> bool:
        return not (
            self.key_valid is None
            and self.query_valid is None
            and self.query_segment is None
            and self.query_block is None
            and self.allowed is None
        )

    def check(self, batch: Sequence[int], queries: int, keys: int) -> None:
        """Refuse arrays that do not fit an operator's sizes.

        Raises:
            OperatorError: An array is longer, shorter or of another batch.
        """
        if not self._has_tensors:
            return
        for name, value in self._tensors().items():
            own = {"q": (queries,), "k": (keys,), "a": (queries, keys)}[name[0]]
            fitting = own, (*(1 for _ in batch), *own), (*batch, *own)
            if value is not None and tuple(value.shape) not in fitting:
                raise OperatorError(
                    f"mask {name} has shape {tuple(value.shape)}; this operator needs {own}, "
                    f"alone or behind its batch axes {tuple(batch)}"
                )

    def transpose(self) -> "Mask":
        """Return the mask with queries and keys exchanged."""
        return Mask(
            before=self.after,
            after=self.before,
            chunk=self.chunk,
            query_origin=self.key_origin,
            key_origin=self.query_origin,
            key_valid=self.query_valid,
            query_valid=self.key_valid,
            query_segment=self.key_segment,
            key_segment=self.query_segment,
            query_block=self.key_block,
            key_block=self.query_block,
            allowed=None if self.allowed is None else self.allowed.mT,
        )

    def key_span(self, start: int, stop: int, *, keys: int) -> tuple[int, int]:
        """Return a run of keys outside which the queries `start` to `stop - 1` see nothing."""
        low, high = 0, keys
        if self.query_block is None:
            first, last = start + self.offset, stop - 1 + self.offset
            if self.before is not None:
                low = max(low, first - self.before)
            if self.after is not None:
                high = min(high, last + self.after + 1)
            if self.chunk is not None:
                low = max(
                    low, (first + self.key_origin) // self.chunk * self.chunk - self.key_origin
                )
                end = (last + self.key_origin) // self.chunk * self.chunk + self.chunk
                high = min(high, end - self.key_origin)
        if (
            self.query_segment is not None
            and self.key_segment is not None
            and self.query_block is None
        ):
            same = torch.isin(self.key_segment, self.query_segment[..., start:stop].unique())
            found = same.reshape(-1, keys).any(0).nonzero()
            low = max(low, int(found[0])) if len(found) else keys
            high = min(high, int(found[-1]) + 1) if len(found) else low
        return min(low, keys), max(min(low, keys), high)

    def visible(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether each key is visible to each query; index arrays broadcast together."""
        position, other = query + self.query_origin, key + self.key_origin
        visible = torch.ones(
            torch.broadcast_shapes(query.shape, key.shape), dtype=torch.bool, device=query.device
        )
        if self.before is not None:
            visible = visible & (position - other <= self.before)
        if self.after is not None:
            visible = visible & (other - position <= self.after)
        if self.chunk is not None:
            visible = visible & (position // self.chunk == other // self.chunk)
        return self._visible_by_arrays(visible, query, key)

    def _visible_by_arrays(self, visible: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if self.query_block is not None and self.key_block is not None:
            block = self.query_block[..., query]
            visible = visible | ((block == self.key_block[..., key]) & (block >= 0))
        if self.query_segment is not None and self.key_segment is not None:
            visible = visible & (self.query_segment[..., query] == self.key_segment[..., key])
        if self.key_valid is not None:
            visible = visible & self.key_valid[..., key]
        if self.query_valid is not None:
            visible = visible & self.query_valid[..., query]
        if self.allowed is not None:
            visible = visible & self.allowed[..., query, key]
        return visible

    def tile(
        self, queries: Int[Tensor, " query"], keys: Int[Tensor, " key"]
    ) -> Bool[Tensor, "*batch query key"]:
        """Return which entries are visible at chosen queries and keys."""
        return self.visible(queries[:, None], keys[None, :])

    def leaves_band_open(self, width: int, offset: int) -> bool:
        """Return whether the rules are known to hide none of the last `width` keys of any query.

        They are counted back from the key `offset` places after the query's own index.
        """
        if not self.is_by_distance:
            return False
        nearest, furthest = self.offset - offset, self.offset - offset + width - 1
        behind = self.before is None or furthest <= self.before
        return behind and (self.after is None or -nearest <= self.after)

    def leaves_open(self, queries: slice, keys: slice) -> bool:
        """Return whether the rules are known to hide nothing in this tile (false is no promise)."""
        if not self.is_by_distance:
            return False
        nearest = queries.start + self.offset - (keys.stop - 1)
        furthest = queries.stop - 1 + self.offset - keys.start
        behind = self.before is None or furthest <= self.before
        return behind and (self.after is None or -nearest <= self.after)

    def _tensors(self) -> dict[str, Tensor | None]:
        names = (
            "key_valid",
            "query_valid",
            "query_segment",
            "key_segment",
            "query_block",
            "key_block",
            "allowed",
        )
        return {name: getattr(self, name) for name in names}

    def to(self, device: torch.device) -> "Mask":
        """Return the mask with its arrays on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in self._tensors().items() if value is not None
        }
        return replace(self, **moved) if moved else self

    def item(self, index: int) -> "Mask":
        """Return the mask of one item of the batch; an array may be shared by all."""
        own: dict[str, Any] = {}
        for name, value in self._tensors().items():
            if value is not None and value.ndim > (2 if name == "allowed" else 1):
                own[name] = value[index if len(value) > 1 else 0]
        return replace(self, **own) if own else self

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the arrays and the plain rules, each by its name."""
        tensors = {name: value for name, value in self._tensors().items() if value is not None}
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return tensors, {
            name: value for name, value in plain.items() if name not in self._tensors()
        }

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Mask":
        """Return the mask that `parts` described."""
        rules: dict[str, Any] = {**facts, **tensors}
        return cls(**rules)
