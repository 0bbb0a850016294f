"""`Scores`: the numbers before the softmax, as factors, masks and biases never multiplied out.

`attend` is where every softmax operator spends its time: one fused call where the rules are plain,
fused calls by blocks of queries over just the keys that a block can see where they are not, and
a blocked pass of our own where the kernels cannot follow (soft-capped scores).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attnscope.attention.bias import Bias
from attnscope.attention.fused import exponential, fused_attention
from attnscope.attention.mask import Mask
from attnscope.attention.tile import block_length, skew

__all__ = ["Scores"]

_FUSED_BLOCK = 512
"""Queries of one fused call under a mask that needs blocks."""

_BAND_SHARE = 4
"""How many times smaller the blocks of a band are than those of other passes."""

Attended = tuple[Float[Tensor, "batch head query dim"], Float[Tensor, "batch head query"]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """`softcap(scale q_t . k_j) + bias_tj`, hidden where the mask says so.

    Attributes:
        query: `(batch, head, query, dim)`.
        key: `(batch, kv_head, key, dim)`; query head `h` reads key head `h // (head / kv_head)`.
        scale: Factor of the products.
        mask: Which entries exist.
        bias: Added to the scores, after the cap.
        softcap: `c` of `c tanh(score / c)`; None for none.
    """

    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch kv_head key dim"]
    scale: float
    mask: Mask
    bias: Bias | None = None
    softcap: float | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return `(batch, head, query, key)`."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    @property
    def is_plain(self) -> bool:
        """Return whether scores are products alone, so that the identities of fused calls hold."""
        return self.bias is None and self.softcap is None

    @property
    def _learns_bias(self) -> bool:
        """Whether a gradient has to reach the bias, which the kernels do not give."""
        tensors = {} if self.bias is None or not torch.is_grad_enabled() else self.bias.parts()[0]
        return any(tensor.requires_grad for tensor in tensors.values())

    @property
    def needs_graph(self) -> bool:
        """Return whether gradients have to reach query, key or bias."""
        factors = self.query.requires_grad or self.key.requires_grad
        return self._learns_bias or (torch.is_grad_enabled() and factors)

    def no_values(self) -> Float[Tensor, "batch kv_head key 1"]:
        """Return values for a call of which only the log normalizer is wanted."""
        return self.key.new_zeros(()).expand(*self.key.shape[:3], 1)

    def precise(self) -> "Scores":
        """Return the scores of factors in float32 at least."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        return replace(self, query=self.query.to(dtype), key=self.key.to(dtype))

    def tempered(self, power: float) -> "Scores":
        """Return the scores times a positive number: their softmax is `A^power`, renormalized."""
        bias = None if self.bias is None else self.bias.scaled(power)
        cap = None if self.softcap is None else self.softcap * power
        return replace(self, scale=self.scale * power, bias=bias, softcap=cap)

    def at(
        self, products: Float[Tensor, "batch head *rest"], query: Tensor, key: Tensor
    ) -> Float[Tensor, "batch head *rest"]:
        """Return finished scores from products `q . k`, whose index arrays broadcast together."""
        scores = products * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        hidden = ~self._visible_at(query, key)
        if self.bias is not None:
            added = self._bias_at(self.bias, query, key).to(scores.dtype)
            hidden = hidden | (added == -torch.inf)  # as a sum it would pass NaN back to its row
            scores = scores + added
        return scores.masked_fill(hidden, -torch.inf)

    def _bias_at(
        self, bias: Bias, query: Tensor, key: Tensor
    ) -> Float[Tensor, "#batch #head *rest"]:
        added = bias.at(query, key)
        lead = added.ndim - max(query.ndim, key.ndim) - 1
        return added.reshape(added.shape[:lead].numel(), *added.shape[lead:])

    def _visible_at(self, query: Tensor, key: Tensor) -> Bool[Tensor, "#batch 1 *rest"]:
        visible = self.mask.visible(query, key)
        lead = visible.ndim - max(query.ndim, key.ndim)
        return visible.reshape(visible.shape[:lead].numel(), 1, *visible.shape[lead:])

    def tile(
        self, queries: Int[Tensor, " query"], keys: Int[Tensor, " key"]
    ) -> Float[Tensor, "batch head query key"]:
        """Return the scores of a tile in float32 at least, -inf where hidden."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        query = self.query.index_select(2, queries).to(dtype)
        key = self.key.index_select(2, keys).to(dtype)
        products = _grouped_products(query, key)
        if self.is_plain and self.mask.leaves_open(_span(queries), _span(keys)):
            return products * self.scale
        return self.at(products, queries[:, None], keys[None, :])

    def band(
        self, width: int, offset: int
    ) -> Iterator[tuple[slice, Float[Tensor, "batch head query width"]]]:
        """Yield the scores `s[t, t + offset - d]`, `0 <= d < width`, by blocks of queries."""
        batch, heads, queries, keys = self.shape
        rows = max(64, width)
        # Blocks small enough for the cache: the few passes over them cost more than the products.
        length = block_length((batch, heads, 1, 2 * width + rows)) // _BAND_SHARE
        step = max(rows, length // rows * rows)
        distance = torch.arange(width, device=self.query.device)
        open_inside = self.is_plain and self.mask.leaves_band_open(width, offset)
        for start in range(0, queries, step):
            block = slice(start, min(start + step, queries))
            products = _band_products(
                self.query[:, :, block], self.key, start + offset, width, rows
            )
            if open_inside and start + offset >= width - 1 and block.stop + offset <= keys:
                yield block, products * self.scale
                continue
            query = torch.arange(block.start, block.stop, device=self.query.device)[:, None]
            key = query + offset - distance
            scores = self.at(products, query, key.clamp(0, keys - 1))
            yield block, scores.masked_fill((key < 0) | (key >= keys), -torch.inf)

    def attend(self, value: Float[Tensor, "batch kv_head key dim"]) -> Attended:
        """Return the output of softmax attention and the log normalizer, with O(T) memory."""
        query, key, value = _matched_heads(self.query, self.key, value)
        if self.is_plain:
            is_open = self.mask.leaves_open(slice(0, query.shape[2]), slice(0, key.shape[2]))
            if is_open or self.mask.is_plain_causal:  # open: each step of decoding, too
                return fused_attention(query, key, value, scale=self.scale, causal=not is_open)
        scores = replace(self, query=query, key=key)
        if self.softcap is not None or self._learns_bias:
            return scores._by_blocks(scores._attend_block, value, block_length(self.shape))
        if (
            self.bias is None
            and self.mask.transpose().is_plain_causal
            and len({*query.shape[2:3], key.shape[2]}) == 1
        ):
            flipped = (part.flip(2) for part in (query, key, value))
            output, log_normalizer = fused_attention(*flipped, scale=self.scale, causal=True)
            return output.flip(2), log_normalizer.flip(2)
        return scores._by_blocks(scores._fuse_block, value, _FUSED_BLOCK)

    def _by_blocks(
        self, attend: Callable[[Tensor, slice], Attended], value: Tensor, step: int
    ) -> Attended:
        wanted = self.needs_graph or (torch.is_grad_enabled() and value.requires_grad)
        tracked = wanted and self.shape[2] > 1  # one row of a map is no larger than its keys
        pieces = []
        for start in range(0, self.shape[2], step):
            block = slice(start, min(start + step, self.shape[2]))
            if tracked:  # else every block's map would wait for the backward pass
                piece = checkpoint(
                    attend, value, block, use_reentrant=False, preserve_rng_state=False
                )
                pieces.append(piece)
            else:
                pieces.append(attend(value, block))
        outputs, normalizers = zip(*pieces, strict=True)
        return torch.cat(outputs, dim=2), torch.cat(normalizers, dim=2)

    def _fuse_block(self, value: Tensor, block: slice) -> Attended:
        low, high = self.mask.key_span(block.start, block.stop, keys=self.shape[3])
        query = self.query[:, :, block]
        if low == high:
            return _nothing(query, value)
        additive = self._additive(block, slice(low, high))
        return fused_attention(
            query,
            self.key[:, :, low:high],
            value[:, :, low:high],
            scale=self.scale,
            additive=additive,
        )

    def _additive(
        self, queries: slice, keys: slice
    ) -> Float[Tensor, "#batch #head query key"] | None:
        device = self.query.device
        query = torch.arange(queries.start, queries.stop, device=device)[:, None]
        key = torch.arange(keys.start, keys.stop, device=device)[None, :]
        bias = None if self.bias is None else self._bias_at(self.bias, query, key)
        if self.mask.leaves_open(queries, keys):
            return bias
        visible = self._visible_at(query, key)
        if bias is None:
            bias = torch.zeros((), dtype=self.query.dtype, device=device)
        return (
            bias.masked_fill(~visible, -torch.inf)
            if bias.ndim
            else torch.where(visible, bias, -torch.inf)
        )

    def _attend_block(self, value: Tensor, block: slice) -> Attended:
        low, high = self.mask.key_span(block.start, block.stop, keys=self.shape[3])
        if low == high:
            return _nothing(self.query[:, :, block], value)
        device = self.query.device
        scores = self.tile(
            torch.arange(block.start, block.stop, device=device),
            torch.arange(low, high, device=device),
        )
        log_normalizer = scores.logsumexp(-1)
        pattern = exponential(scores, log_normalizer).to(value.dtype)
        return _grouped_apply(pattern, value[:, :, low:high]), log_normalizer


def _nothing(query: Tensor, value: Tensor) -> Attended:
    """Return what queries without keys read: zeros, and a log normalizer of -inf."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    normalizer = query.new_full(query.shape[:3], -torch.inf, dtype=dtype)
    return query.new_zeros(*query.shape[:3], value.shape[-1]), normalizer


def _span(positions: Tensor) -> slice:
    """Return the run of positions in which the chosen ones lie."""
    if not len(positions):
        return slice(0, 1)
    return slice(int(positions.min()), int(positions.max()) + 1)


def _matched_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give key and value one head count that divides the queries', by strides where possible."""
    if value.shape[1] == 1:
        value = value.expand(-1, key.shape[1], -1, -1)
    if key.shape[1] == 1:
        key = key.expand(-1, value.shape[1], -1, -1)
    if value.shape[1] != key.shape[1]:
        heads = query.shape[1]
        key, value = (
            part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value)
        )
    dtype = torch.promote_types(query.dtype, value.dtype)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _grouped_products(query: Tensor, key: Tensor) -> Tensor:
    """Return `q . k` for grouped heads: queries of one group are stacked as rows of one product."""
    batch, heads, rows, _ = query.shape
    stacked = query.reshape(batch, key.shape[1], heads // key.shape[1] * rows, query.shape[-1])
    return (stacked @ key.mT).view(batch, heads, rows, key.shape[2])


def _grouped_apply(pattern: Tensor, value: Tensor) -> Tensor:
    batch, heads, rows, keys = pattern.shape
    stacked = pattern.reshape(batch, value.shape[1], heads // value.shape[1] * rows, keys)
    return (stacked @ value).view(batch, heads, rows, value.shape[-1])


def _band_products(query: Tensor, key: Tensor, first: int, width: int, rows: int) -> Tensor:
    """Return `q_t . k_{t-d}` for queries at positions `first ...`, by tiles and a skewed view."""
    batch, heads, queries, dim = query.shape
    kv_heads, blocks = key.shape[1], -(-queries // rows)
    dtype = torch.promote_types(query.dtype, torch.float32)
    query = torch.nn.functional.pad(query.to(dtype), (0, 0, 0, blocks * rows - queries))
    low, high = first - (width - 1), first + blocks * rows
    inside = key[:, :, max(0, low) : max(0, min(high, key.shape[2]))].to(dtype)
    left = min(max(0, -low), high - low)
    window = torch.nn.functional.pad(inside, (0, 0, left, high - low - left - inside.shape[2]))
    window = window.unfold(2, rows + width - 1, rows)  # batch kv_head block dim window
    stacked = query.view(batch, kv_heads, -1, blocks, rows, dim).transpose(2, 3).flatten(3, 4)
    products = stacked @ window  # batch kv_head block (group row) window
    products = products.unflatten(3, (heads // kv_heads, rows)).transpose(2, 3)
    band = skew(products.flatten(1, 2), shift=0, width=width)  # batch head block row width
    return band.flatten(2, 3)[:, :, :queries]
