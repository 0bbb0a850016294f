"""`GateAttention`: a gate, which multiplies each position by a number and reads no other."""

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.key_function import KeyFunction
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import TILE_LIMIT, Index, alike, indices, tile_indices

__all__ = ["GateAttention"]


class GateAttention(AttentionOperator):
    """`A = diag(g)`: position `t` reads `g_t` times its own value.

    The papers call it spatial, channel or large-kernel attention, but no position looks at another:
    `g` may depend on the whole input, the operator does not mix it. A row holds one entry and is no
    distribution, so what needs one (entropy, `normalized()`) is refused, even where `g` lies in
    (0, 1). Everything else costs O(T). It says nothing of an order, so it is not called causal.

    Args:
        gate: One number per position, `(*batch, head, position)`; any sign.
        query_axis: What a position is: token, patch or channel.
        key_axis: The same.

    Raises:
        OperatorError: The gate has no head axis, or its axes are not the same positions.

    Example:
        >>> A = GateAttention(torch.tensor([[0.5, -1.0]]), query_axis="patch", key_axis="patch")
        >>> A.apply(torch.tensor([[[2.0], [3.0]]])).flatten().tolist()
        [1.0, -3.0]
        >>> A.dense().tolist(), A.signed
        ([[[0.5, 0.0], [0.0, -1.0]]], True)
    """

    def __init__(
        self,
        gate: Float[Tensor, "*batch head position"],
        *,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        if gate.ndim < 2:
            raise OperatorError(
                f"gate has shape {tuple(gate.shape)}; it needs at least the axes (head, position)"
            )
        if query_axis != key_axis:
            raise OperatorError(
                f"a gate maps each position to itself; it cannot map {key_axis} keys "
                f"to {query_axis} queries"
            )
        self.gate = gate
        self.shape = torch.Size((*gate.shape, gate.shape[-1]))
        self.dtype, self.device = torch.promote_types(gate.dtype, torch.float32), gate.device
        self.stochastic, self.signed = False, bool((gate.detach() < 0).any())
        self.query_axis, self.key_axis = query_axis, key_axis

    def apply(
        self, values: Float[Tensor, "*batch #head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return each value times the gate of its position."""
        gate, values = alike(self.gate, values)
        return gate.unsqueeze(-1) * values

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return each weight times the gate: a diagonal is its own transpose."""
        return self.apply(weights)

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return the gate where query and key are one position, 0 elsewhere."""
        chosen_queries, chosen_keys = tile_indices(self.shape, queries, keys, limit=limit)
        chosen_queries, chosen_keys = chosen_queries.to(self.device), chosen_keys.to(self.device)
        gate = self.gate.to(self.dtype).index_select(-1, chosen_queries)
        return torch.where(chosen_queries[:, None] == chosen_keys, gate.unsqueeze(-1), 0.0)

    def band(self, width: int) -> Float[Tensor, "*batch head query {width}"]:
        """Return the gate at distance 0 and nothing further back."""
        if width < 1:
            raise OperatorError(f"band width is {width}; it counts diagonals and starts at 1")
        return torch.nn.functional.pad(self._precise().unsqueeze(-1), (0, width - 1))

    def key_moment(self, function: KeyFunction) -> Float[Tensor, "*batch head query"]:
        """Return the gate times the function of its own position."""
        return self._precise() * function.values(self.keys).to(self.device, self.dtype)

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the gate."""
        return self._precise()

    def column_mass(self) -> Float[Tensor, "*batch head key"]:
        """Return the gate."""
        return self._precise()

    def absolute_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the size of the gate."""
        return self._precise().abs()

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `g_t^p`."""
        if self.signed:
            return super().power_sum(exponent)
        if exponent <= 0:
            raise OperatorError(f"power_sum({exponent}): the exponent is positive")
        return self._precise().pow(exponent)

    def entropy(self) -> NoReturn:
        """Refuse: a gate spreads nothing over keys."""
        self._refuse("entropy")

    def normalized(self) -> NoReturn:
        """Refuse: divided by their sums all rows of a gate would be those of the identity."""
        self._refuse("normalized()")

    def select_heads(self, heads: Index) -> "GateAttention":
        """Return the gates of some heads."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        return self._with(self.gate.index_select(-2, chosen))

    def item(self, index: int) -> "GateAttention":
        """Return the gate of one item of the batch, cut from the graph.

        Raises:
            OperatorError: There is no batch axis.
        """
        self._require_batch()
        return self._with(self.gate[index].detach())

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the gate and what its positions are."""
        return {"gate": self.gate}, {"query_axis": self.query_axis, "key_axis": self.key_axis}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "GateAttention":
        """Return the operator of a stored gate."""
        return cls(tensors["gate"], **facts)

    def _precise(self) -> Float[Tensor, "*batch head position"]:
        return self.gate.to(self.dtype)

    def _with(self, gate: Tensor) -> "GateAttention":
        return GateAttention(gate, query_axis=self.query_axis, key_axis=self.key_axis)

    def _refuse(self, what: str) -> NoReturn:
        raise OperatorError(
            f"{what} needs rows that are distributions over keys; {self!r} is a gate: "
            "each position keeps a share of itself and reads no other. Its numbers are `.gate`"
        )
