"""`ScanAttention`: the hidden attention of a selective state-space layer, as a recurrence."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.scan_product import groups_of, per_head, scan_product
from attnscope.attention.tile import TILE_LIMIT, Index, indices, tile_indices

__all__ = ["ScanAttention"]

_ROWS_AT_ONCE = 2**22
"""Elements of the largest block of a pass over rows; of many heads some are taken at a time."""


class ScanAttention(AttentionOperator):
    """`A_ij = delta_j sum_n q_i[n] k_j[n] exp(decay[n] (S_i - S_j))` for `j <= i`, `S` sums delta.

    It is the map of the recurrence `h_t = exp(decay delta_t) h_(t-1) + delta_t k_t v_t`,
    `o_t = q_t . h_t`. Of a Mamba layer `q` is C, `k` is B (by Euler's rule, `delta B`, as released
    weights want it), `decay` is A and `skip` is D; each channel is a head of its own with a rate
    per entry of the state. Of a Mamba-2 layer a head has one rate. Constant delta and rates make
    linear attention that fades (RetNet). Entries have any sign, rows sum to anything, nobody looks
    ahead. Values are read at O(T state).

    Args:
        query: What is read from the state, `(*batch, group, position, state)`; groups of heads
            share it.
        key: What is written to the state, of the same shape.
        delta: How far each position steps, `(*batch, head, position)`, not negative.
        decay: Rates of fading, not positive, `(head, state)`, or `(head, 1)` for one per head.
        skip: What each head adds of a position's own value, `(head,)`.
        signed: Whether entries may be negative; by default they may if any factor is.
        query_axis: What a position is.
        key_axis: The same.

    Raises:
        OperatorError: The factors do not fit each other.

    Reference:
        Gu & Dao 2023, arXiv:2312.00752, algorithm 2; Ali et al. 2024, arXiv:2403.01590 (hidden
        attention; the closed form by sums of delta is our own reading); Dao & Gu 2024,
        arXiv:2405.21060 (Mamba-2).

    Example:
        >>> ones = torch.ones(1, 3, 1)  # a state of one number that halves at each step
        >>> delta, half = torch.tensor([[1.0, 1.0, 2.0]]), torch.full((1, 1), 0.5).log()
        >>> A = ScanAttention(ones, ones, delta, half)
        >>> A.dense().tolist()  # the last step is twice as long: it halves twice and writes double
        [[[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.125, 0.25, 2.0]]]
        >>> A.apply(torch.tensor([[[8.0], [4.0], [1.0]]])).flatten().tolist()
        [8.0, 8.0, 4.0]
    """

    def __init__(  # noqa: PLR0913 - each argument changes the mathematics
        self,
        query: Float[Tensor, "*batch group position state"],
        key: Float[Tensor, "*batch group position state"],
        delta: Float[Tensor, "*batch head position"],
        decay: Float[Tensor, "head #state"],
        *,
        skip: Float[Tensor, " head"] | None = None,
        signed: bool | None = None,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        self.query, self.key, self.delta, self.decay, self.skip = query, key, delta, decay, skip
        self._check(query_axis, key_axis)
        self.query_axis, self.key_axis = query_axis, key_axis
        self.shape = torch.Size((*delta.shape, delta.shape[-1]))
        self.dtype = torch.promote_types(torch.promote_types(query.dtype, delta.dtype), torch.float)
        self.device = delta.device
        self.stochastic, self.causal = False, True
        factors = [query, key, delta, *([] if skip is None else [skip])]
        least = [factor.detach().amin() for factor in factors if factor.numel()]
        self.signed = any(bool(low < 0) for low in least) if signed is None else signed

    def _check(self, query_axis: str, key_axis: str) -> None:
        query, key, delta, decay = self.query, self.key, self.delta, self.decay
        fits = (
            delta.ndim >= 2
            and query.ndim == delta.ndim + 1
            and query.shape == key.shape
            and (*query.shape[:-3], query.shape[-2]) == (*delta.shape[:-2], delta.shape[-1])
            and delta.shape[-2] % query.shape[-3] == 0
            and decay.shape in ((delta.shape[-2], 1), (delta.shape[-2], query.shape[-1]))
            and (self.skip is None or self.skip.shape == (delta.shape[-2],))
        )
        if not fits:
            shapes = ", ".join(str(tuple(factor.shape)) for factor in (query, key, delta, decay))
            raise OperatorError(
                f"query, key, delta and decay of shapes {shapes} do not fit; they need (*batch, "
                "group, position, state) twice, (*batch, head, position) and (head, state or 1), "
                "and a skip (head,)"
            )
        if query_axis != key_axis:
            raise OperatorError(
                "queries and keys of a scan are the same positions; they cannot be "
                f"{query_axis} and {key_axis}"
            )

    def without_skip(self) -> "ScanAttention":
        """Return the hidden attention alone, without what each position keeps of itself."""
        return ScanAttention(
            self.query,
            self.key,
            self.delta,
            self.decay,
            query_axis=self.query_axis,
            key_axis=self.key_axis,
        )

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return what the states read, by the recurrence."""
        query, key, delta, decay = self._factors(values.dtype)
        values = values.to(query.dtype)
        result = scan_product(query, key, delta, decay, delta.unsqueeze(-1) * values)
        return self._skipped(result, values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U`: the recurrence run backwards, keys and queries in each other's place."""
        query, key, delta, decay = self._factors(weights.dtype)
        weights = weights.to(query.dtype)
        # Backwards, a position is reached by the step of the one that follows it.
        steps = pad(delta[..., 1:], (0, 1)).flip(-1)
        backwards = (key.flip(-2), query.flip(-2), steps, decay, weights.flip(-2))
        return self._skipped(delta.unsqueeze(-1) * scan_product(*backwards).flip(-2), weights)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the closed form at the chosen queries and keys, one entry of the state a time."""
        chosen = tile_indices(self.shape, queries, keys, limit=limit)
        rows, columns = chosen[0].to(self.device), chosen[1].to(self.device)
        query, key, delta, decay = self._factors()
        # Sums over a long sequence are large, their differences small.
        sums = delta.double().cumsum(-1)
        passed = (
            sums.index_select(-1, rows).unsqueeze(-1) - sums.index_select(-1, columns)[..., None, :]
        )
        hidden = columns > rows[:, None]
        passed = passed.masked_fill(hidden, 0.0).to(self.dtype)
        query = per_head(query.index_select(-2, rows), self.heads)
        key = per_head(key.index_select(-2, columns), self.heads)
        if decay.shape[-1] == 1:
            entries = (query @ key.mT) * (decay.unsqueeze(-1) * passed).exp()
        else:
            entries = torch.zeros_like(passed)
            for number, rate in enumerate(decay.unbind(-1)):
                products = query[..., :, None, number] * key[..., None, :, number]
                entries = entries + products * (rate[:, None, None] * passed).exp()
        entries = entries * delta.index_select(-1, columns).unsqueeze(-2)
        entries = entries.masked_fill(hidden, 0.0)
        if self.skip is None:
            return entries
        return entries + (columns == rows[:, None]) * self.skip.to(self.dtype)[:, None, None]

    def select_heads(self, heads: Index) -> "ScanAttention":
        """Return the scan of some heads; a group of queries and keys that all share stays one."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        return ScanAttention(
            groups_of(self.query, chosen, self.heads),
            groups_of(self.key, chosen, self.heads),
            self.delta.index_select(-2, chosen),
            self.decay.index_select(-2, chosen),
            skip=None if self.skip is None else self.skip.index_select(-1, chosen),
            **self._facts(),
        )

    def item(self, index: int) -> "ScanAttention":
        """Return one item of the batch, cut from the graph.

        Raises:
            OperatorError: There is no batch axis.
        """
        self._require_batch()
        return ScanAttention(
            self.query[index].detach(),
            self.key[index].detach(),
            self.delta[index].detach(),
            self.decay.detach(),
            skip=None if self.skip is None else self.skip.detach(),
            **self._facts(),
        )

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the factors of the recurrence."""
        names = ("query", "key", "delta", "decay", "skip")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return tensors, self._facts()

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "ScanAttention":
        """Return the operator of stored factors."""
        factors = (tensors[name] for name in ("query", "key", "delta", "decay"))
        return cls(*factors, skip=tensors.get("skip"), **facts)

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("signed", "query_axis", "key_axis")}

    def _factors(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = self.dtype if dtype is None else torch.promote_types(self.dtype, dtype)
        factors = (self.query, self.key, self.delta, self.decay)
        query, key, delta, decay = (factor.to(wide) for factor in factors)
        return query, key, delta, decay

    def _skipped(self, result: Tensor, values: Tensor) -> Tensor:
        if self.skip is None:
            return result
        return result + self.skip.to(result.dtype)[:, None, None] * values

    def _rowwise(
        self, function: Callable[[Tensor], Tensor], undefined: float = 0.0
    ) -> Float[Tensor, "*batch head query"]:
        # A layer has thousands of channels: sixteen rows of all of them are no small block.
        batch = torch.Size(self.shape[:-3]).numel()
        some = max(1, _ROWS_AT_ONCE // max(1, 16 * self.keys * batch))
        if some >= self.heads:
            return super()._rowwise(function, undefined)
        starts = range(0, self.heads, some)
        pieces = [self.select_heads(slice(start, start + some)) for start in starts]
        return torch.cat([piece._rowwise(function, undefined) for piece in pieces], dim=-2)
