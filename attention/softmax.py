"""`SoftmaxAttention`: softmax attention by its factors, with exact statistics from fused kernels.

Everything costs O(T) memory. Where scores are plain products, each statistic is one or two fused
calls; a bias or a soft-cap turns some of them into blocked passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention.bias import BIASES, Bias, DenseBias
from attnscope.attention.errors import OperatorError
from attnscope.attention.mask import Mask
from attnscope.attention.operator import (
    TILE_LIMIT,
    AttentionOperator,
    Index,
    KeyFunction,
    check_tile_size,
    indices,
)
from attnscope.attention.scores import Scores

__all__ = ["SoftmaxAttention"]


class SoftmaxAttention(AttentionOperator):
    """`A_tj = exp(s_tj - lse_t)` with `s_tj = scale q_t . k_j` and `lse_t = logsumexp_j s_tj`.

    Args:
        query: Queries as the kernel sees them (rotated, normalized), `(*batch, head, query, dim)`.
        key: Keys, `(*batch, kv_head, key, dim)`; with fewer heads than the queries for grouped heads.
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
        _check_factors(query, key, sinks)
        if mask is not None and causal is not None:
            raise OperatorError("give causal= or mask=, not both: Mask(after=0) is the causal mask")
        if mask is None:
            causal = causal is not False
            mask = Mask(
                after=0 if causal else None,
                query_origin=key.shape[-2] - query.shape[-2] if causal else 0,
            )
        mask.check(query.shape[:-3], query.shape[-2], key.shape[-2])
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
        same = query_axis == key_axis and (
            mask.after is not None or mask.before is not None or self._is_square
        )
        self.offset = mask.offset if same else None
        self._kernel_normalizer: Tensor | None = None
        self._moments: dict[str, Tensor] = {}
        self._widest_band: Tensor | None = None

    # --- the parts --------------------------------------------------------------------------

    scale = property(lambda self: self._scores.scale, doc="Factor of the products.")
    mask = property(lambda self: self._scores.mask, doc="Rules of visibility.")
    bias = property(lambda self: self._scores.bias, doc="What is added to the scores.")
    softcap = property(lambda self: self._scores.softcap, doc="Bound of the products.")

    @property
    def _is_square(self) -> bool:
        return self.queries == self.keys

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which queries see at least one key."""
        may_hide = isinstance(self.bias, DenseBias)
        if not may_hide and (self.mask.hides_nothing or self.mask.is_plain_causal):
            return super().valid_queries
        seeing = (self._kernel() != -torch.inf).reshape(self.shape[:-1])
        return seeing if may_hide else seeing.any(-2, keepdim=True)

    # --- one fused call ---------------------------------------------------------------------

    def attend(
        self, value: Float[Tensor, "*batch kv_head key dim"], riders: Sequence[KeyFunction] = ()
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `A V` in the factors' own type, and remember what came with it.

        The log normalizer costs nothing, and each rider one more column of values: afterwards
        `log_normalizer()` and `key_moment(rider)` answer from memory.
        """
        shared = [heads for heads in range(1, self.heads + 1) if self.heads % heads == 0]
        self._check_fit("values", value, (shared, self.keys))
        flat = value.reshape(-1, *value.shape[-3:])
        columns = [_columns(rider, self.keys, flat) for rider in riders]
        output, normalizer = self._scores.attend(
            torch.cat([flat, *columns], dim=-1) if columns else flat
        )
        self._kernel_normalizer = normalizer.detach().to(self.dtype)
        output = self._share(output, normalizer)
        dim = value.shape[-1]
        for rider, moment in zip(
            riders, output[..., dim:].split([c.shape[-1] for c in columns], -1), strict=True
        ):
            total = moment.to(self.dtype).sum(-1) * max(self.keys, 1)
            self._moments[rider.name] = total.reshape(self.shape[:-1]).detach()
        return output[..., :dim].reshape(*self.shape[:-1], dim)

    def apply(
        self, values: Float[Tensor, "*batch value_head key dim"]
    ) -> Float[Tensor, "*batch head query dim"]:
        """Return `A V` by a fused call; values may have one head, one per key head or one per head."""
        return self.attend(values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch #head query dim"]
    ) -> Float[Tensor, "*batch head key dim"]:
        """Return `A^T U` by one fused call whose queries are the keys.

        With queries `[scale k_j, 1]` and keys `[q_t, -lse_t]` the transposed scores are
        `s_tj - lse_t = log A_tj`, so that their normalizer is the log of a column sum.
        """
        self._check_fit("weights", weights, ([1, self.heads], self.queries))
        weights = weights.expand(*self.shape[:-3], self.heads, -1, -1)
        flat = weights.reshape(-1, *weights.shape[-3:]).to(self.dtype)
        scores = self._scores
        if not scores.is_plain:
            return self._apply_transpose_by_blocks(flat).reshape(*self.shape[:-2], self.keys, -1)
        total = self._normalizer().unsqueeze(-1)
        empty = total == -torch.inf
        key = scores.key.repeat_interleave(self.heads // scores.key.shape[1], dim=1).to(self.dtype)
        transposed = Scores(
            query=torch.cat([key * scores.scale, torch.ones_like(key[..., :1])], dim=-1),
            key=torch.cat([scores.query.to(self.dtype), -total.masked_fill(empty, 0.0)], dim=-1),
            scale=1.0,
            mask=scores.mask.transpose(),
        )
        output, column_normalizer = transposed.attend(flat)
        return (output * column_normalizer.exp().unsqueeze(-1)).reshape(
            *self.shape[:-2], self.keys, -1
        )

    def _check_fit(self, what: str, given: Tensor, needed: tuple[list[int], int]) -> None:
        heads, length = needed
        batch, sizes = given.shape[:-3], given.shape[-3:-1]
        if batch != self.shape[:-3] or tuple(sizes) not in [(count, length) for count in heads]:
            raise OperatorError(
                f"{what} {tuple(given.shape)} do not fit {self!r}: needed are batch axes "
                f"{tuple(self.shape[:-3])}, {heads} heads, {length} rows and any width"
            )

    def _apply_transpose_by_blocks(self, weights: Tensor) -> Tensor:
        total = torch.zeros(
            *self._scores.shape[:2],
            self.keys,
            weights.shape[-1],
            dtype=self.dtype,
            device=self.device,
        )
        for block, pattern in self.blocks():
            total = total + pattern.reshape(-1, *pattern.shape[-3:]).mT @ weights[:, :, block]
        return total

    # --- slices -----------------------------------------------------------------------------

    def tile(
        self, queries: Index, keys: Index, *, limit: int = TILE_LIMIT
    ) -> Float[Tensor, "*batch head some_query some_key"]:
        """Return `exp(s - lse)` on a tile; only the chosen rows' normalizers are needed."""
        chosen_queries = indices(queries, self.queries, "query").to(self.device)
        chosen_keys = indices(keys, self.keys, "key").to(self.device)
        check_tile_size((*self.shape[:-2], len(chosen_queries), len(chosen_keys)), limit)
        scores = self._scores.tile(chosen_queries, chosen_keys)
        pattern = _exponential(scores, self._normalizer(chosen_queries))
        return pattern.reshape(*self.shape[:-2], len(chosen_queries), len(chosen_keys))

    def band(self, width: int) -> Float[Tensor, "*batch head query {width}"]:
        """Return the band by `exp(s - lse)` on its entries alone, O(T width); the widest is remembered."""
        offset = self._require_offset("band")
        if width < 1:
            raise OperatorError(f"band width is {width}; it counts diagonals and starts at 1")
        if not self._remembers or self._widest_band is None or self._widest_band.shape[-1] < width:
            normalizer = self._normalizer()
            pieces = [
                _exponential(scores, normalizer[:, :, block])
                for block, scores in self._scores.band(width, offset)
            ]
            band = torch.cat(pieces, dim=2).reshape(*self.shape[:-1], width)
            self._widest_band = band.detach()
            return band
        return self._widest_band[..., :width]

    # --- functionals ------------------------------------------------------------------------

    def log_normalizer(self) -> Float[Tensor, "*batch head query"]:
        """Return `lse_t`, with the learned sink where there is one; -inf for a query that sees nothing."""
        return self._normalizer().reshape(self.shape[:-1])

    def row_mass(self) -> Float[Tensor, "*batch head query"]:
        """Return the sum of each row: 1, or what a learned sink leaves."""
        total, kernel = self._normalizer(), self._kernel()
        mass = (kernel - total.masked_fill(total == -torch.inf, 0.0)).exp()
        return mass.reshape(self.shape[:-1])

    def key_moment(self, function: KeyFunction) -> Float[Tensor, "*batch head query"]:
        """Return the mean of a function of the key, from memory where it rode on an earlier call."""
        if self._remembers and function.name in self._moments:
            return self._moments[function.name]
        moment = super().key_moment(function)
        self._moments[function.name] = moment.detach()
        return moment

    def entropy(self) -> Float[Tensor, "*batch head query"]:
        """Return `lse_t - scale q_t . (A K)_t`, the entropy of each row in nats.

        One fused call with the keys as values. Biases and soft-caps take a blocked pass.
        """
        self._require_stochastic("entropy")
        if not self._scores.is_plain:
            return super().entropy()
        scores = self._scores.precise()
        mean_key, normalizer = scores.attend(scores.key)
        mean_score = (scores.query * mean_key).sum(-1) * scores.scale
        entropy = (normalizer - mean_score).clamp_min(0.0)
        return entropy.masked_fill(normalizer == -torch.inf, torch.nan).reshape(self.shape[:-1])

    def power_sum(self, exponent: float) -> Float[Tensor, "*batch head query"]:
        """Return `sum_j A_tj^p = exp(lse(p s) - p lse(s))`, one more fused call."""
        if exponent <= 0:
            raise OperatorError(f"power_sum({exponent}): the exponent is positive")
        tempered = self._scores.precise().tempered(exponent)
        _, normalizer = tempered.attend(_no_values(tempered.key))
        total = self._normalizer()
        return (
            (normalizer - exponent * total.masked_fill(total == -torch.inf, 0.0))
            .exp()
            .reshape(self.shape[:-1])
        )

    # --- other operators --------------------------------------------------------------------

    def normalized(self) -> "SoftmaxAttention":
        """Return the operator without its learned sink: the same rows, each divided by its sum."""
        return self if self.sinks is None else self._rebuilt(sinks=None)

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
        if self._kernel_normalizer is not None:
            selected._kernel_normalizer = self._kernel_normalizer.index_select(1, chosen)
        return selected

    def item(
        self, index: int, *, query_axis: str | None = None, key_axis: str | None = None
    ) -> "SoftmaxAttention":
        """Return one item of the batch, cut from the graph, with what is already known of it."""
        mask_tensors, mask_facts = self.mask.parts()
        own = {
            name: _item(tensor, index, _MASK_AXES[name]) for name, tensor in mask_tensors.items()
        }
        selected = self._rebuilt(
            query=self.query[index].detach(),
            key=self.key[index].detach(),
            mask=Mask.from_parts(own, mask_facts),
            bias=None if self.bias is None else self.bias.item(index),
            sinks=None if self.sinks is None else self.sinks.detach(),
            query_axis=query_axis or self.query_axis,
            key_axis=key_axis or self.key_axis,
        )
        if self._kernel_normalizer is not None:
            known = self._kernel_normalizer.reshape(self.shape[:-1])[index]
            selected._kernel_normalizer = known.reshape(-1, *known.shape[-2:])
        selected._moments = {name: moment[index] for name, moment in self._moments.items()}
        return selected

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return factors, log normalizer, mask, bias and sinks."""
        tensors = {"query": self.query, "key": self.key, "log_normalizer": self._kernel()}
        mask_tensors, mask_facts = self.mask.parts()
        facts: dict[str, Any] = {"scale": self.scale, "softcap": self.softcap, "mask": mask_facts}
        facts |= {"query_axis": self.query_axis, "key_axis": self.key_axis, "bias": None}
        tensors |= {f"mask.{name}": tensor for name, tensor in mask_tensors.items()}
        if self.sinks is not None:
            tensors["sinks"] = self.sinks
        if self.bias is not None:
            bias_tensors, bias_facts = self.bias.parts()
            facts["bias"] = {"kind": type(self.bias).__name__, "facts": bias_facts}
            tensors |= {f"bias.{name}": tensor for name, tensor in bias_tensors.items()}
        return tensors, facts

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "SoftmaxAttention":
        """Return the operator of stored factors."""
        bias = facts["bias"]
        operator = cls(
            tensors["query"],
            tensors["key"],
            facts["scale"],
            mask=Mask.from_parts(_under("mask.", tensors), facts["mask"]),
            bias=None
            if bias is None
            else BIASES[bias["kind"]].from_parts(_under("bias.", tensors), bias["facts"]),
            softcap=facts["softcap"],
            sinks=tensors.get("sinks"),
            query_axis=facts["query_axis"],
            key_axis=facts["key_axis"],
        )
        operator._kernel_normalizer = tensors["log_normalizer"]
        return operator

    def _rebuilt(self, **changes: Any) -> "SoftmaxAttention":
        facts = {
            name: getattr(self, name)
            for name in ("query", "key", "scale", "mask", "bias", "softcap", "sinks")
        }
        axes = {"query_axis": self.query_axis, "key_axis": self.key_axis}
        return SoftmaxAttention(**(facts | axes | changes))

    # --- normalizers ------------------------------------------------------------------------

    def _kernel(self, queries: Tensor | None = None) -> Float[Tensor, "batch head some_query"]:
        """Return the normalizer without the learned sink, of all or of chosen queries."""
        if self._remembers and self._kernel_normalizer is not None:
            known = self._kernel_normalizer
            return known if queries is None else known.index_select(2, queries)
        if queries is not None and len(queries) < self.queries:
            every_key = torch.arange(self.keys, device=self.device)
            return torch.cat(
                [self._scores.tile(rows, every_key).logsumexp(-1) for rows in queries.split(_ROWS)],
                dim=-1,
            )
        scores = self._scores.precise()
        normalizer = scores.attend(_no_values(scores.key))[1]
        self._kernel_normalizer = normalizer.detach()
        return normalizer if queries is None else normalizer.index_select(2, queries)

    @property
    def _remembers(self) -> bool:
        """Return whether earlier results may be handed out again: not where gradients must flow."""
        bias = {} if self.bias is None else self.bias.parts()[0]
        learned = (self.query, self.key, self.sinks, *bias.values())
        return not (
            torch.is_grad_enabled()
            and any(part is not None and part.requires_grad for part in learned)
        )

    def _normalizer(self, queries: Tensor | None = None) -> Float[Tensor, "batch head some_query"]:
        kernel = self._kernel(queries)
        return (
            kernel
            if self.sinks is None
            else torch.logaddexp(kernel, self.sinks.to(kernel.dtype)[:, None])
        )

    def _share(self, output: Tensor, normalizer: Tensor) -> Tensor:
        """Scale outputs of the kernel by what the learned sink leaves of each row."""
        if self.sinks is None:
            return output
        total = torch.logaddexp(normalizer, self.sinks.to(normalizer.dtype)[:, None])
        return output * (normalizer - total).exp().unsqueeze(-1).to(output.dtype)


_ROWS = 256
_MASK_AXES = {"allowed": 2} | {
    f"{side}_{what}": 1 for side in ("query", "key") for what in ("valid", "segment", "block")
}


def _item(tensor: Tensor, index: int, axes: int) -> Tensor:
    """Return an item of an array whose batch axis may be missing or shared."""
    if tensor.ndim == axes:
        return tensor
    return tensor[index if len(tensor) > 1 else 0]


def _exponential(scores: Tensor, normalizer: Tensor) -> Tensor:
    return (scores - normalizer.masked_fill(normalizer == -torch.inf, 0.0).unsqueeze(-1)).exp()


def _no_values(key: Tensor) -> Tensor:
    return key.new_zeros(()).expand(*key.shape[:3], 1)


def _columns(rider: KeyFunction, keys: int, like: Tensor) -> Float[Tensor, "batch head key split"]:
    """Return a rider as columns of values in [0, 1] at most one rounding from exact in any type."""
    column = rider.values(keys).to(like.device) / max(keys, 1)
    pieces = []
    for _ in range(1 if like.dtype in (torch.float32, torch.float64) else 3):
        pieces.append(column.to(like.dtype))
        column = column - pieces[-1].to(column.dtype)
    return torch.stack(pieces, dim=-1).expand(*like.shape[:2], keys, len(pieces))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _check_factors(query: Tensor, key: Tensor, sinks: Tensor | None) -> None:
    if query.ndim < 3 or query.shape[:-3] != key.shape[:-3] or query.shape[-1] != key.shape[-1]:
        raise OperatorError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} do not fit; they need the shapes "
            "(*batch, head, query, dim) and (*batch, kv_head, key, dim)"
        )
    if key.shape[-3] == 0 or query.shape[-3] % key.shape[-3]:
        raise OperatorError(
            f"{query.shape[-3]} query heads cannot share {key.shape[-3]} key heads evenly"
        )
    if sinks is not None and sinks.shape != query.shape[-3:-2]:
        raise OperatorError(
            f"sinks has shape {tuple(sinks.shape)}; one logit for each of {query.shape[-3]} heads"
        )
    if query.dtype != key.dtype:
        raise OperatorError(f"query is {query.dtype}, key is {key.dtype}; they need one type")
