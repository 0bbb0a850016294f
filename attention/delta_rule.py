"""`DeltaRuleAttention`: the gated delta rule, whose state forgets what is rewritten."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.delta_product import delta_product, delta_product_transposed
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.scan_product import groups_of
from attnscope.attention.tile import TILE_LIMIT, Index, check_tile_size, indices, tile_indices

__all__ = ["DeltaRuleAttention"]


class DeltaRuleAttention(AttentionOperator):
    """`A = L (I + N)^-1 diag(beta)`: linear attention that fades, of values that were corrected.

    The state is `S_t = g_t (I - beta_t k_t k_t^T) S_(t-1) + beta_t k_t v_t^T`, the output
    `S_t^T q_t`. Each position writes what its value adds to what its key already reads,
    `u_t = beta_t (v_t - k_t . S)`: with `L_tj = (q_t . k_j) g_(j+1) ... g_t` for `j <= t` and
    `N_tj = beta_t (k_t . k_j) g_(j+1) ... g_t` for `j < t` these are the three factors (the
    factoring is our reading of the papers' WY form). Entries have any sign, rows sum to anything.
    Applied by chunks in O(T dim^2).

    Args:
        query: `(*batch, group, position, dim)`, as it is multiplied (normalized and scaled);
            groups of heads share it.
        key: Of the same shape.
        beta: How much of its old value a key gives up, `(*batch, head, position)`, 0 to 1 (to 2
            where reflections are allowed).
        log_decay: `log g_t`, not positive, of the shape of beta; zeros are the plain delta rule.
        query_axis: What a position is.
        key_axis: The same.

    Raises:
        OperatorError: The factors do not fit each other.

    Reference:
        Schlag et al. 2021, arXiv:2102.11174, equation 24; Yang et al. 2024, arXiv:2406.06484
        (chunks); Yang et al. 2024, arXiv:2412.06464, equation 10 (the gate).

    Example:
        >>> ones, beta = torch.ones(1, 2, 1), torch.tensor([[1.0, 0.5]])
        >>> A = DeltaRuleAttention(ones, ones, beta, torch.zeros(1, 2))
        >>> A.dense().tolist()  # the second value replaces half of the first: one key for both
        [[[1.0, 0.0], [0.5, 0.5]]]
    """

    def __init__(
        self,
        query: Float[Tensor, "*batch group position dim"],
        key: Float[Tensor, "*batch group position dim"],
        beta: Float[Tensor, "*batch head position"],
        log_decay: Float[Tensor, "*batch head position"],
        *,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        fits = (
            beta.ndim >= 2
            and query.ndim == beta.ndim + 1
            and query.shape == key.shape
            and (*query.shape[:-3], query.shape[-2]) == (*beta.shape[:-2], beta.shape[-1])
            and beta.shape[-2] % query.shape[-3] == 0
            and log_decay.shape == beta.shape
        )
        if not fits:
            shapes = ", ".join(str(tuple(part.shape)) for part in (query, key, beta, log_decay))
            raise OperatorError(
                f"query, key, beta and log_decay of shapes {shapes} do not fit; they need (*batch, "
                "group, position, dim) twice and (*batch, head, position) twice"
            )
        if query_axis != key_axis:
            raise OperatorError(
                "queries and keys of the delta rule are the same positions; they cannot be "
                f"{query_axis} and {key_axis}"
            )
        self.query, self.key, self.beta, self.log_decay = query, key, beta, log_decay
        self.query_axis, self.key_axis = query_axis, key_axis
        self.shape = torch.Size((*beta.shape, beta.shape[-1]))
        self.dtype = torch.promote_types(torch.promote_types(query.dtype, beta.dtype), torch.float)
        self.device = beta.device
        self.stochastic, self.signed, self.causal = False, True, True

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return what the states read, chunk by chunk."""
        factors = self._factors(values.dtype)
        return delta_product(factors, values.to(factors[0].dtype))

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U`, chunk by chunk from the end."""
        factors = self._factors(weights.dtype)
        return delta_product_transposed(factors, weights.to(factors[0].dtype))

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return a tile by thin products with unit vectors, on the thinner side.

        Only positions from the first key to the last query have a part in it.
        """
        chosen = tile_indices(self.shape, queries, keys, limit=limit)
        rows, columns = chosen[0].to(self.device), chosen[1].to(self.device)
        first = int(columns.min()) if len(columns) else 0
        length = int(rows.max()) + 1 - first if len(rows) else 0
        if length <= 0 or not len(columns):
            shape = (*self.shape[:-2], len(rows), len(columns))
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        check_tile_size((*self.shape[:-2], min(len(rows), len(columns)), length), limit)
        run = self._run(first, length)
        places = [(side - first).clamp(0, length - 1) for side in (rows, columns)]
        if len(rows) <= len(columns):
            reached = run.apply_transpose(self._units(places[0], length))
            entries = reached.index_select(-2, places[1]).mT
        else:
            entries = run.apply(self._units(places[1], length)).index_select(-2, places[0])
        return entries.masked_fill(columns > rows[:, None], 0.0)

    def select_heads(self, heads: Index) -> "DeltaRuleAttention":
        """Return the rule of some heads; queries and keys that all heads share stay one group."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        query, key = (groups_of(part, chosen, self.heads) for part in (self.query, self.key))
        numbers = (part.index_select(-2, chosen) for part in (self.beta, self.log_decay))
        return DeltaRuleAttention(query, key, *numbers, **self._facts())

    def item(self, index: int) -> "DeltaRuleAttention":
        """Return one item of the batch, cut from the graph.

        Raises:
            OperatorError: There is no batch axis.
        """
        self._require_batch()
        own = (part[index].detach() for part in self._parts())
        return DeltaRuleAttention(*own, **self._facts())

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the factors of the rule."""
        names = ("query", "key", "beta", "log_decay")
        return dict(zip(names, self._parts(), strict=True)), self._facts()

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "DeltaRuleAttention":
        """Return the operator of stored factors."""
        own = (tensors[name] for name in ("query", "key", "beta", "log_decay"))
        return cls(*own, **facts)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.query, self.key, self.beta, self.log_decay

    def _facts(self) -> dict[str, Any]:
        return {"query_axis": self.query_axis, "key_axis": self.key_axis}

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = torch.promote_types(self.dtype, dtype)
        query, key, beta, log_decay = (part.to(wide) for part in self._parts())
        return query, key, beta, log_decay

    def _run(self, first: int, length: int) -> "DeltaRuleAttention":
        """Return the rule of a run of positions alone."""
        rows = slice(first, first + length)
        return DeltaRuleAttention(
            self.query[..., rows, :],
            self.key[..., rows, :],
            self.beta[..., rows],
            self.log_decay[..., rows],
            **self._facts(),
        )

    def _units(self, chosen: Tensor, length: int) -> Float[Tensor, "*batch one length chosen"]:
        units = torch.zeros(length, len(chosen), dtype=self.dtype, device=self.device)
        units[chosen, torch.arange(len(chosen), device=self.device)] = 1
        return units.expand(*self.shape[:-3], 1, -1, -1)
