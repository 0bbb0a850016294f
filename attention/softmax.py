"""`SoftmaxAttention`: softmax attention by its factors, with exact statistics from fused kernels.

Everything costs O(T) memory. Where scores are plain products, each statistic is one or two fused
calls; a bias or a soft-cap turns some of them into blocked passes.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.arguments import check_factors, check_fit, mask_of, packed, unpacked
from attnscope.attention.bias import Bias, DenseBias
from attnscope.attention.errors import OperatorError
from attnscope.attention.fused import exponential
from attnscope.attention.key_function import KeyFunction, key_position
from attnscope.attention.marginals import Marginals, marginals, pays
from attnscope.attention.mask import Mask
from attnscope.attention.normalizer import Normalizer
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.riders import moments_of, with_columns
from attnscope.attention.row_entropy import entropy_of_scores
from attnscope.attention.scores import Scores
from attnscope.attention.tile import TILE_LIMIT, Index, indices, tile_indices
from attnscope.attention.tile_statistics import mean_position, serves, tile_band
from attnscope.attention.transposition import received, transposed_by_blocks

__all__ = ["SoftmaxAttention"]

_LEAST_BAND = 64
"""Diagonals that a band computes at least."""


class SoftmaxAttention(AttentionOperator):
    """`A_tj = exp(s_tj - lse_t)` with `s_tj = scale q_t . k_j` and `lse_t = logsumexp_j s_tj`.

    Args:
        query: Queries as the kernel sees them (rotated, normalized), `(*batch, head, query, dim)`.
        key: Keys, `(*batch, kv_head, key, dim)`; with fewer heads for grouped queries.
        scale: Factor of the products; by default `1 / sqrt(dim)`.
        causal: Query `t` sees keys up to its own position, the last query standing at the last key.
            By default true where no mask is given; with a mask, the mask alone decides.
        mask: Any other rules of visibility.
        bias: Added to the scores (after the cap).
        softcap: `c` of `c tanh(score / c)` (Gemma 2).
        sinks: One learned logit per head that takes a share of every row (gpt-oss); rows then sum
            to less than 1.
        query_axis: What a query is: token, patch, memory, probe or channel.
        key_axis: What a key is.

    Raises:
        OperatorError: The parts do not fit each other.

    Example:
        >>> query = key = torch.zeros(1, 4, 8)
        >>> A = SoftmaxAttention(query, key)  # equal scores: uniform over what a token can see
        >>> A.rows([3]).tolist()
        [[[0.25, 0.25, 0.25, 0.25]]]
        >>> [round(float(h), 4) for h in A.entropy()[0].exp()]
        [1.0, 2.0, 3.0, 4.0]
    """

    def __init__(  # noqa: PLR0913 - each argument changes the mathematics
        self,
        query: Float[Tensor, "*batch head query dim"],
        key: Float[Tensor, "*batch kv_head key dim"],
        scale: float | None = None,
        causal: bool | None = None,
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        softcap: float | None = None,
        sinks: Float[Tensor, " head"] | None = None,
        query_axis: str = "token",
        key_axis: str = "token",
    ) -> None:
        check_factors(query, key, sinks)
        mask = mask_of(mask, causal, query, key)
        self.query, self.key, self.sinks = query, key, sinks
        self._scores = Scores(
            query=query.reshape(-1, *query.shape[-3:]),
            key=key.reshape(-1, *key.shape[-3:]),
            scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
            mask=mask,
            bias=bias,
            softcap=softcap,
        )
        self.shape = torch.Size((*query.shape[:-1], key.shape[-2]))
        self.dtype = torch.promote_types(query.dtype, torch.float32)
        self.device = query.device
        self.stochastic = sinks is None
        self.causal = mask.is_causal
        self.query_axis, self.key_axis = query_axis, key_axis
        placed = mask.after is not None or mask.before is not None or self.queries == self.keys
        self.offset = mask.offset if placed and query_axis == key_axis else None
        self._normalizer = Normalizer(self._scores, sinks)
        self._moments: dict[str, Tensor] = {}
        self._widest_band: Tensor | None = None

    scale = property(lambda self: self._scores.scale, doc="Factor of the products.")
    mask = property(lambda self: self._scores.mask, doc="Rules of visibility.")
    bias = property(lambda self: self._scores.bias, doc="What is added to the scores.")
    softcap = property(lambda self: self._scores.softcap, doc="Bound of the products.")

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which queries see at least one key."""
        may_hide = isinstance(self.bias, DenseBias)
        if not may_hide and (self.mask.hides_nothing or self.mask.is_plain_causal):
            return super().valid_queries
        seeing = (self._normalizer.kernel() != -torch.inf).reshape(self.shape[:-1])
        return seeing if may_hide else seeing.any(-2, keepdim=True)

    def attend(
        self, value: Float[Tensor, "*batch kv_head key dim"], riders: Sequence[KeyFunction] = ()
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `A V` in the factors' own type, and remember what came with it.

        The log normalizer costs nothing, and each rider one more column of values: afterwards
        `log_normalizer()` and `key_moment(rider)` answer from memory.
        """
        check_fit("values", value, self, "key")
        flat = value.reshape(-1, *value.shape[-3:])
        output, normalizer = self._scores.attend(with_columns(flat, riders))
        if self._normalizer.known is None:
            self._normalizer.known = normalizer.detach().to(self.dtype)
        output = self._normalizer.share(output, normalizer)
        read = output[..., value.shape[-1] :].detach()
        for name, moment in moments_of(read, riders, flat).items():
            self._moments[name] = moment.to(self.dtype).reshape(self.shape[:-1])
        return output[..., : value.shape[-1]].reshape(*self.shape[:-1], -1)

    def apply(
        self, values: Float[Tensor, "*batch value_head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `A V` by a fused call; heads may share values, as they may share keys."""
        return self.attend(values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U`, in one fused call or one pass over tiles where scores are plain."""
        check_fit("weights", weights, self, "query")
        weights = weights.expand(*self.shape[:-3], self.heads, -1, -1).to(self.dtype)
        if not self._scores.is_plain:
            return transposed_by_blocks(self.blocks(), weights, self.keys)
        flat = weights.reshape(-1, *weights.shape[-3:])
        columns = received(self._scores, self._normalizer.total(), flat)
        return columns.reshape(*self.shape[:-2], self.keys, weights.shape[-1])

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return `exp(s - lse)` on a tile; only the chosen rows' normalizers are needed."""
        chosen_queries, chosen_keys = tile_indices(self.shape, queries, keys, limit=limit)
        chosen_queries, chosen_keys = chosen_queries.to(self.device), chosen_keys.to(self.device)
        scores = self._scores.tile(chosen_queries, chosen_keys)
        pattern = exponential(scores, self._normalizer.total(chosen_queries))
        return pattern.reshape(*self.shape[:-2], len(chosen_queries), len(chosen_keys))

    def band(self, width: int) -> Float[Tensor, "*batch head query {width}"]:
        """Return `exp(s - lse)` on the band alone, O(T width); the widest is remembered."""
        self._require_offset("band")
        if width < 1:
            raise OperatorError(f"band width is {width}; it counts diagonals and starts at 1")
        if not self._remembers or self._widest_band is None or self._widest_band.shape[-1] < width:
            computed = max(width, _LEAST_BAND)  # the next metric often asks for a wider one
            band = tile_band(self._scores, self._normalizer.total(), computed)
            band = band.reshape(*self.shape[:-1], computed)
            self._widest_band = band.detach()
            return band[..., :width]
        return self._widest_band[..., :width]

    def log_normalizer(self) -> Float[Tensor, "*batch head query"]:
        """Return `lse_t`, a learned sink included; -inf for a query that sees nothing."""
        return self._normalizer.total().reshape(self.shape[:-1])

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the sum of each row: 1, or what a learned sink leaves."""
        kernel = self._normalizer.kernel()
        total = self._normalizer.with_sinks(kernel)
        return (kernel - total.masked_fill(total == -torch.inf, 0.0)).exp().reshape(self.shape[:-1])

    def key_moment(self, function: KeyFunction) -> Float[Tensor, "*batch head query"]:
        """Return the mean of a function of the key; from memory where it rode on a call."""
        if self._remembers and function.name in self._moments:
            return self._moments[function.name]
        if function.name == key_position.name and self._remembers and serves(self._scores):
            moment = mean_position(self._scores, self._normalizer.total()).reshape(self.shape[:-1])
        else:
            moment = super().key_moment(function)
        self._moments[function.name] = moment.detach()
        return moment

    def column_mass(self) -> Float[Tensor, "*batch head key"]:
        """Return what each key receives; on a processor from the pass that gives entropies."""
        if not (self._remembers and pays(self._scores)):
            return super().column_mass()
        return self._marginals.received.reshape(*self.shape[:-2], self.keys)

    def entropy(self) -> Float[Tensor, "*batch head query"]:
        """Return the entropy of each row in nats; under a bias or a soft-cap block by block."""
        self._require_stochastic("entropy")
        if not self._scores.is_plain:
            return super().entropy()
        if self._remembers and pays(self._scores) and self._normalizer.known is not None:
            return self._marginals.entropy.reshape(self.shape[:-1])
        return entropy_of_scores(self._normalizer).reshape(self.shape[:-1])

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j A_tj^p = exp(lse(p s) - p lse(s))`, one more fused call."""
        if exponent <= 0:
            raise OperatorError(f"power_sum({exponent}): the exponent is positive")
        tempered = self._scores.precise().tempered(exponent)
        _, normalizer = tempered.attend(tempered.no_values())
        total = self._normalizer.total()
        power = normalizer - exponent * total.masked_fill(total == -torch.inf, 0.0)
        return power.exp().reshape(self.shape[:-1])

    def normalized(self) -> "SoftmaxAttention":
        """Return the operator without its learned sink: the same rows, each divided by its sum."""
        if self.sinks is None:
            return self
        without = self._rebuilt(sinks=None)
        without._normalizer.known = self._normalizer.known
        return without

    def select_heads(self, heads: Index) -> "SoftmaxAttention":
        """Return the operator of some heads, remembering what is known of them."""
        chosen = indices(heads, self.heads, "head").to(self.device)
        group = self.heads // self.key.shape[-3]
        selected = self._rebuilt(
            query=self.query.index_select(-3, chosen),
            key=self.key.index_select(-3, chosen // group),
            bias=None if self.bias is None else self.bias.select_heads(chosen),
            sinks=None if self.sinks is None else self.sinks.index_select(0, chosen),
        )
        if self._normalizer.known is not None:
            selected._normalizer.known = self._normalizer.known.index_select(1, chosen)
        return selected

    def item(
        self, index: int, *, query_axis: str | None = None, key_axis: str | None = None
    ) -> "SoftmaxAttention":
        """Return one item of the batch, cut from the graph, with what is already known of it."""
        self._require_batch()
        selected = self._rebuilt(
            query=self.query[index].detach(),
            key=self.key[index].detach(),
            mask=self.mask.item(index),
            bias=None if self.bias is None else self.bias.item(index),
            sinks=None if self.sinks is None else self.sinks.detach(),
            query_axis=query_axis or self.query_axis,
            key_axis=key_axis or self.key_axis,
        )
        if self._normalizer.known is not None:
            selected._know(self._normalizer.known.reshape(self.shape[:-1])[index])
        selected._moments = {name: moment[index] for name, moment in self._moments.items()}
        return selected

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return factors, log normalizer, mask, bias and sinks."""
        tensors, facts = packed(self._arguments())
        normalizer = self._normalizer.kernel().reshape(self.shape[:-1])
        return tensors | {"log_normalizer": normalizer}, facts

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "SoftmaxAttention":
        """Return the operator of stored factors."""
        operator = cls(**unpacked(tensors, facts))
        operator._know(tensors["log_normalizer"])
        return operator

    def _know(self, kernel: Float[Tensor, "*batch head query"]) -> None:
        self._normalizer.known = kernel.reshape(-1, *kernel.shape[-2:])

    def _arguments(self) -> dict[str, Any]:
        names = ("query", "key", "scale", "mask", "bias", "softcap", "sinks")
        return {name: getattr(self, name) for name in (*names, "query_axis", "key_axis")}

    def _rebuilt(self, **changes: Any) -> "SoftmaxAttention":
        return SoftmaxAttention(**(self._arguments() | changes))

    @cached_property
    def _marginals(self) -> Marginals:
        return marginals(self._scores, self._normalizer.total())

    @property
    def _remembers(self) -> bool:
        """Return whether earlier results may serve again: not where gradients must flow."""
        sinks = torch.is_grad_enabled() and self.sinks is not None and self.sinks.requires_grad
        return not (sinks or self._scores.needs_graph)
