"""The score and mask functions of torch's flex attention, as rules where they follow rules.

The functions are evaluated tile by tile, so that rules of any length take O(T) memory: a window of
distances, packed documents, a bias by distance, a soft-cap. What follows no rule is kept entry by
entry.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.attention import Bias, DenseBias, Mask, RelativeBias
from attnscope.probes.errors import CaptureError

__all__ = ["FlexFunctions", "FlexRules"]

ScoreFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

_TILE = 512
_ENTRY_BY_ENTRY = 8192**2
"""How many entries are kept one by one, at most."""

_TRIED = (-3.0, -0.5, 1.0, 8.0)
_HUGE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexRules:
    """What flex attention computes, in the terms of a softmax operator.

    Attributes:
        mask: Which entries exist.
        bias: Added to the scores.
        softcap: `c` of `c tanh(score / c)`; None for none.
        factor: Multiplies the scores, where a score function does that.
    """

    mask: Mask
    bias: Bias | None
    softcap: float | None
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexFunctions:
    """The functions of one call, in which flex attention's own names for things end.

    Attributes:
        score: `score(s, batch, head, query, key)`, the changed score of one entry; None for none.
        mask: `mask(batch, head, query, key)`, whether an entry exists.
        shape: `(batch, head, query, key)`.
        device: Where the functions' own tensors lie.

    Example:
        >>> near = FlexFunctions(
        ...     score=lambda s, b, h, q, k: s + 0.5 * (k - q),
        ...     mask=lambda b, h, q, k: (k <= q) & (q - k < 2),
        ...     shape=(1, 2, 4, 4),
        ...     device=torch.device("cpu"),
        ... ).rules()
        >>> near.mask.before, near.mask.after, near.bias.table[:, near.bias.zero - 1].tolist()
        (1, 0, [-0.5, -0.5])
    """

    score: ScoreFunction | None
    mask: MaskFunction
    shape: tuple[int, int, int, int]
    device: torch.device

    @torch.no_grad()
    def rules(self) -> FlexRules:
        """Return the rules that these functions follow, checked on every entry.

        Raises:
            CaptureError: Scores are changed in another way than by a bias, a factor or a soft-cap,
                or what has to be kept entry by entry is too long for that.
        """
        factor, cap = (1.0, None) if self.score is None else self._form()
        extent, varies = self._extent()
        if varies:  # heads differ in what they see, which a `Mask` cannot
            added = self._entry_by_entry(lambda mask, bias: bias.masked_fill(~mask, -torch.inf))
            return FlexRules(mask=Mask(), bias=DenseBias(added), softcap=cap, factor=factor)
        return FlexRules(mask=self._mask(extent), bias=self._bias(), softcap=cap, factor=factor)

    @classmethod
    def of_call(
        cls, query: Tensor, key: Tensor, score: ScoreFunction, block_mask: tuple[Any, ...]
    ) -> "FlexFunctions":
        """Return the functions of a call, from what torch hands to its kernels.

        The kernels read the blocks that are listed and no others, whatever the function says.
        """
        *_, query_block, key_block, function = block_mask
        listed = _listed_blocks(*block_mask[2:6])
        batch, heads = listed.shape[:2]

        def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            block = b.clamp(max=batch - 1), h.clamp(max=heads - 1), q // query_block, k // key_block
            return function(b, h, q, k) & listed[block]

        changed = getattr(score, "__name__", "") != "_identity"
        sizes = (query.shape[0], query.shape[1]) if changed else (batch, heads)
        return cls(
            score=score if changed else None,
            mask=mask,
            shape=(*sizes, query.shape[2], key.shape[2]),
            device=query.device,
        )

    # --- evaluation ---------------------------------------------------------------------------

    def _at(
        self, queries: Int[Tensor, "..."], keys: Int[Tensor, "..."], score: float = 0.0
    ) -> tuple[Bool[Tensor, "batch head ..."], Float[Tensor, "batch head ..."]]:
        """Return whether entries exist, and the scores that are made of one score."""
        batch, heads = self.shape[:2]
        queries, keys = torch.broadcast_tensors(queries, keys)
        whole = (batch, heads, *queries.shape)
        grid = (1,) * queries.ndim

        def spread(numbers: Tensor) -> Tensor:
            return numbers.expand(whole).reshape(-1)

        places = (
            spread(torch.arange(batch, device=self.device).reshape(-1, 1, *grid)),
            spread(torch.arange(heads, device=self.device).reshape(-1, *grid)),
            spread(queries),
            spread(keys),
        )
        scores = torch.full((places[0].numel(),), score, device=self.device)
        if self.score is not None:
            scores = torch.vmap(self.score)(scores, *places)
        exists = torch.vmap(self.mask)(*places)
        return (exists & _is_finite(scores)).reshape(whole), scores.reshape(whole)

    def _tiles(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield queries, keys, which entries exist and what is added, tile by tile."""
        rows, columns = (self._range(length).split(_TILE) for length in self.shape[2:])
        for queries, keys in product(rows, columns):
            exists, added = self._at(queries[:, None], keys[None, :])
            yield queries, keys, exists, added

    def _range(self, length: int) -> Int[Tensor, " place"]:
        return torch.arange(length, device=self.device)

    # --- which form ---------------------------------------------------------------------------

    def _form(self) -> tuple[float, float | None]:
        """Return the factor and the cap of the scores, tried on a grid of entries."""
        queries, keys = (
            torch.linspace(0, length - 1, min(length, 32), device=self.device).long()
            for length in self.shape[2:]
        )
        exists, added = self._at(queries[:, None], keys[None, :])
        if not bool(exists.any()):
            return 1.0, None

        def change(score: float) -> Float[Tensor, " entry"]:
            return (self._at(queries[:, None], keys[None, :], score)[1] - added)[exists]

        found = {score: change(score) for score in _TRIED}
        slope = float(found[1.0].median())
        if all(_is_close(seen, slope * score) for score, seen in found.items()):
            return slope, None
        cap = float(change(_HUGE).median())
        capped = {score: cap * torch.tensor(score / cap).tanh() for score in _TRIED} if cap else {}
        if cap > 0 and all(_is_close(found[score], float(capped[score])) for score in _TRIED):
            return 1.0, cap
        raise CaptureError(
            "flex attention changes its scores, and neither by a bias nor a factor nor a soft-cap: "
            f"a score of 1 grows by {float(found[1.0].min()):.3g} to {float(found[1.0].max()):.3g} "
            f"and one of 8 by {float(found[8.0].min()):.3g} to {float(found[8.0].max()):.3g}"
        )

    # --- which mask ---------------------------------------------------------------------------

    def _extent(self) -> tuple[tuple[int, int] | None, bool]:
        """Return how far behind and ahead of a query keys are seen, and whether heads differ."""
        behind = ahead = None
        for queries, keys, exists, _ in self._tiles():
            if bool((exists != exists[:, :1]).any()):
                return None, True
            seen = exists[:, 0].any(0)
            if bool(seen.any()):
                distance = (keys[None, :] - queries[:, None])[seen]
                low, high = -int(distance.min()), int(distance.max())
                behind = low if behind is None else max(behind, low)
                ahead = high if ahead is None else max(ahead, high)
        return None if behind is None or ahead is None else (behind, ahead), False

    def _mask(self, extent: tuple[int, int] | None) -> Mask:
        if extent is None:
            return self._listed(None)
        batch, _, queries, keys = self.shape
        before = None if extent[0] >= queries - 1 else extent[0]
        after = None if extent[1] >= keys - 1 else extent[1]
        window = Mask(before=before, after=after)
        if self._follows(window):
            return window
        if queries == keys:
            # Neighbours belong to one document where either sees the other.
            place = self._range(queries - 1)
            joined = self._at(place + 1, place)[0] | self._at(place, place + 1)[0]
            new = torch.cat([joined.new_zeros(batch, 1), ~joined[:, 0]], dim=-1)
            document = new.cumsum(-1)
            packed = Mask(before=before, after=after, query_segment=document, key_segment=document)
            if self._follows(packed):
                return packed
        return self._listed(after)

    def _follows(self, mask: Mask) -> bool:
        return all(
            bool((mask.visible(queries[:, None], keys[None, :]) == exists[:, 0]).all())
            for queries, keys, exists, _ in self._tiles()
        )

    def _listed(self, after: int | None) -> Mask:
        """Return every entry, and that none lies ahead where that is so."""
        allowed = self._entry_by_entry(lambda mask, bias: mask[:, :1])[:, 0]
        return Mask(after=None if after is None or after > 0 else after, allowed=allowed)

    # --- which bias ---------------------------------------------------------------------------

    def _bias(self) -> Bias | None:
        """Return what is added: nothing, a number for each distance, or entry by entry."""
        if self.score is None:
            return None
        if all(not bool(added[exists].any()) for _, _, exists, added in self._tiles()):
            return None
        queries, keys = self.shape[2:]
        zero = self._range(1)
        left = self._at(self._range(queries).flip(0), zero)[1]
        table = torch.cat([left[..., :-1], self._at(zero, self._range(keys))[1]], dim=-1)
        relative = RelativeBias(table[0].where(_is_finite(table[0]), 0.0), zero=queries - 1)
        if self._is_added(relative):
            return relative
        return DenseBias(self._entry_by_entry(lambda mask, bias: bias.masked_fill(~mask, 0.0)))

    def _is_added(self, bias: RelativeBias) -> bool:
        return all(
            bool((bias.at(queries[:, None], keys[None, :]) == added)[exists].all())
            for queries, keys, exists, added in self._tiles()
        )

    def _entry_by_entry(
        self, kept: Callable[[Tensor, Tensor], Tensor]
    ) -> Bool[Tensor, "batch #head query key"] | Float[Tensor, "batch #head query key"]:
        queries, keys = self.shape[2:]
        if queries * keys > _ENTRY_BY_ENTRY:
            raise CaptureError(
                f"flex attention's functions follow no rule that is known here, and {queries:,} x "
                f"{keys:,} entries are too many to keep one by one (at most {_ENTRY_BY_ENTRY:,})"
            )
        columns = self._range(keys)
        rows = self._range(queries).split(_TILE)
        return torch.cat([kept(*self._at(row[:, None], columns[None, :])) for row in rows], dim=-2)


def _listed_blocks(
    counts: Int[Tensor, "batch head query"],
    indices: Int[Tensor, "batch head query key"],
    full_counts: Int[Tensor, "batch head query"] | None,
    full_indices: Int[Tensor, "batch head query key"] | None,
) -> Bool[Tensor, "batch head query key"]:
    """Return which blocks are read, from lists of them whose first `counts` numbers hold."""
    blocks = torch.arange(indices.shape[-1], device=indices.device)
    listed = torch.zeros_like(indices, dtype=torch.int)
    for count, index in ((counts, indices), (full_counts, full_indices)):
        if count is not None and index is not None:
            holds = (blocks < count.unsqueeze(-1)).int()
            listed.scatter_add_(-1, index.long(), holds)
    return listed > 0


def _is_finite(scores: Tensor) -> Bool[Tensor, "..."]:
    return scores > torch.finfo(scores.dtype).min / 2


def _is_close(seen: Tensor, expected: float) -> bool:
    return bool(((seen - expected).abs() <= 1e-5 * (1 + abs(expected))).all())
