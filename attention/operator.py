"""`AttentionOperator`: a head's attention as a linear map from values to outputs.

Metrics are written against this class only. A mechanism has to say how it maps values forwards
and backwards and how to evaluate a tile; everything else has an exact default here, a blocked pass
with O(T block) memory, which a mechanism replaces where it knows a cheaper exact form.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.display import describe, to_html
from attnscope.attention.errors import OperatorError
from attnscope.attention.key_function import KeyFunction, key_one
from attnscope.attention.row_entropy import entropy_of
from attnscope.attention.tile import TILE_LIMIT, Index, block_length, skew

if TYPE_CHECKING:
    from attnscope.attention.algebra import ProductAttention, SumAttention, TransposedAttention
    from attnscope.attention.head_mean import MeanHeadAttention
    from attnscope.attention.scale import ScaledAttention

__all__ = ["AttentionOperator"]


class AttentionOperator(ABC):
    """A stack of heads, each a linear map from one value per key to one output per query.

    Attributes:
        shape: `(*batch, head, query, key)`.
        dtype: Floating type of what the methods return.
        device: Where the factors lie.
        stochastic: Whether every valid row is a probability distribution.
        signed: Whether entries may be negative.
        causal: Whether a query never reads a key behind its own position.
        offset: Key index that lies at the position of query 0; None where queries and keys are
            not positions of one sequence (cross-attention, probes).
        query_axis: What a query is: token, patch, memory, probe or channel.
        key_axis: What a key is, in the same words.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    stochastic: bool = True
    signed: bool = False
    causal: bool = False
    offset: int | None = 0
    query_axis: str = "token"
    key_axis: str = "token"

    @abstractmethod
    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `A V`: what each query reads of the values (one head of them serves all)."""

    @abstractmethod
    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U`: what each key receives from the queries' weights."""

    @abstractmethod
    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the entries at chosen queries and keys, as a dense block.

        Raises:
            OperatorError: More than `limit` entries would be built, or an index lies outside.
        """

    @abstractmethod
    def select_heads(self, heads: Index) -> "AttentionOperator":
        """Return the operator of some heads only, in the order given."""

    @abstractmethod
    def item(self, index: int) -> "AttentionOperator":
        """Return the operator of one item of the first batch axis, cut from the graph.

        Raises:
            OperatorError: There is no batch axis.
        """

    @abstractmethod
    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and plain facts from which `from_parts` builds this operator again.

        A tensor of three or more axes leads with heads (or with groups of heads), so that a file
        can be read head by head.
        """

    @classmethod
    @abstractmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "AttentionOperator":
        """Return the operator that `parts` described."""

    @property
    def heads(self) -> int:
        """Return the number of heads."""
        return self.shape[-3]

    @property
    def queries(self) -> int:
        """Return the number of queries (rows)."""
        return self.shape[-2]

    @property
    def keys(self) -> int:
        """Return the number of keys (columns)."""
        return self.shape[-1]

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist: false where a query sees no key at all."""
        return torch.ones((*self.shape[:-3], 1, self.queries), dtype=torch.bool, device=self.device)

    def rows(self, queries: Index) -> Float[Tensor, "*batch head some_query key"]:
        """Return whole rows: where the chosen queries look."""
        return self.tile(queries, slice(None))

    def columns(self, keys: Index) -> Float[Tensor, "*batch head query some_key"]:
        """Return whole columns: who looks at the chosen keys."""
        return self.tile(slice(None), keys)

    def dense(self, *, limit: int = TILE_LIMIT) -> Float[Tensor, "*batch head query key"]:
        """Return the whole matrix, for short sequences and for tests.

        Raises:
            OperatorError: The matrix has more than `limit` entries.
        """
        return self.tile(slice(None), slice(None), limit=limit)

    def blocks(self) -> Iterator[tuple[slice, Float[Tensor, "*batch head some_query key"]]]:
        """Yield the matrix as blocks of whole rows, each small enough to hold."""
        step = block_length(self.shape)
        for start in range(0, self.queries, step):
            block = slice(start, min(start + step, self.queries))
            yield block, self.tile(block, slice(None))

    def band(self, width: int) -> Float[Tensor, "*batch head query {width}"]:
        """Return the diagonal band `A[t, t - d]` for `0 <= d < width`, 0 before the first key.

        Distance is measured in positions: query `t` stands at key `t + offset`.

        Raises:
            OperatorError: Queries and keys are not positions of one sequence, or `width < 1`.
        """
        offset = self._require_offset("band")
        if width < 1:
            raise OperatorError(f"band width is {width}; it counts diagonals and starts at 1")
        pieces = []
        for start in range(0, self.queries, max(width, 64)):
            block = slice(start, min(start + max(width, 64), self.queries))
            first = block.start + offset - (width - 1)
            low, high = max(0, first), min(self.keys, block.stop + offset)
            tile = self.tile(block, slice(low, max(low, high)))
            pieces.append(skew(tile, shift=first - low, width=width))
        return torch.cat(pieces, dim=-2)

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the sum of each row: 1 where the row is a distribution."""
        return self.key_moment(key_one)

    def column_mass(self) -> Float[Tensor, "*batch head key"]:
        """Return the sum of each column: the attention that a key receives from all queries."""
        ones = torch.ones((*self.shape[:-1], 1), dtype=self.dtype, device=self.device)
        return self.apply_transpose(ones).squeeze(-1)

    def key_moment(self, function: KeyFunction) -> Float[Tensor, "*batch head query"]:
        """Return the mean of a function of the key under each row, `sum_j A_tj f(j)`."""
        column = function.values(self.keys).to(self.device, self.dtype)
        return self.apply(column.expand(*self.shape[:-3], 1, -1).unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Float[Tensor, "*batch head query"]:
        """Return the entropy of each row in nats, NaN for a query that sees nothing.

        Raises:
            OperatorError: Rows are not distributions; `normalized()` makes them so.
        """
        self._require_stochastic("entropy")
        return self._rowwise(entropy_of, undefined=torch.nan)

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j A_tj^p` of each row; for `p = 2` the chance that two draws agree.

        Raises:
            OperatorError: The operator is signed or the exponent is not positive.
        """
        if self.signed or exponent <= 0:
            raise OperatorError(
                f"power_sum({exponent}) of {self!r}: it takes a positive exponent "
                "and entries that are not negative"
            )
        return self._rowwise(lambda block: block.pow(exponent).sum(-1))

    def absolute_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j |A_tj|` of each row: the row mass of an unsigned operator."""
        return self._rowwise(lambda block: block.abs().sum(-1)) if self.signed else self.row_mass()

    def log_normalizer(self) -> Float[Tensor, "*batch head query"]:
        """Return the log of the softmax denominator of each row.

        Raises:
            OperatorError: The mechanism has none.
        """
        raise OperatorError(f"{self!r} has no log normalizer: only softmax attention does")

    def normalized(self) -> "AttentionOperator":
        """Return the operator whose rows are divided by their sum (itself where they sum to 1).

        Raises:
            OperatorError: The operator is signed, so that a sum may vanish.
        """
        from attnscope.attention.row_scale import RowScaledAttention

        if self.stochastic:
            return self
        if self.signed:
            raise OperatorError(
                f"{self!r} is signed: its row sums may vanish, so rows cannot be normalized"
            )
        mass = self.row_mass()
        return RowScaledAttention(self, torch.where(mass > 0, 1 / mass, 0), stochastic=True)

    def mean_heads(self) -> "MeanHeadAttention":
        """Return the plain mean over heads, as an operator with one head."""
        from attnscope.attention.head_mean import MeanHeadAttention

        return MeanHeadAttention(self)

    @property
    def T(self) -> "TransposedAttention":  # noqa: N802 - the name that numpy and torch use
        """Return the transposed operator: queries and keys change places."""
        from attnscope.attention.algebra import TransposedAttention

        return TransposedAttention(self)

    def __add__(self, other: "AttentionOperator") -> "SumAttention":
        """Return the sum of two operators of one shape."""
        from attnscope.attention.algebra import SumAttention

        return SumAttention((self, other))

    def __matmul__(self, other: "AttentionOperator") -> "ProductAttention":
        """Return the product: `self` reads what `other` has read."""
        from attnscope.attention.algebra import ProductAttention

        return ProductAttention((self, other))

    def __mul__(self, factor: float) -> "ScaledAttention":
        """Return the operator times a number."""
        from attnscope.attention.scale import ScaledAttention

        return ScaledAttention(self, factor)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        """Return the mechanism and its sizes."""
        return describe(self)

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks."""
        return to_html(self)

    def _rowwise(
        self, function: Callable[[Tensor], Tensor], undefined: float = 0.0
    ) -> Float[Tensor, "*batch head query"]:
        valid = self.valid_queries
        result = torch.cat([function(block) for _, block in self.blocks()], dim=-1)
        return result if bool(valid.all()) else result.masked_fill(~valid, undefined)

    def _require_stochastic(self, what: str) -> None:
        if not self.stochastic:
            raise OperatorError(
                f"{what} needs rows that are distributions; "
                f"those of {self!r} are not (ask its normalized())"
            )

    def _require_batch(self) -> None:
        if len(self.shape) == 3:
            raise OperatorError(f"{self!r} has no batch axis to take an item of")

    def _require_offset(self, what: str) -> int:
        if self.offset is None:
            raise OperatorError(
                f"{what} needs queries and keys that are positions of one sequence; "
                f"{self!r} maps {self.key_axis} keys to {self.query_axis} queries"
            )
        return self.offset
