"""Softmax attention the slow way: rules by loops, eager softmax in float64.

Nothing here calls the code under test; of masks and biases only the plain fields are read.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from attnscope.attention import (
    AlibiBias,
    Bias,
    DenseBias,
    Mask,
    RelativeBias,
    SoftmaxAttention,
)

__all__ = ["Case", "band_of", "bias_array", "case_pattern", "mask_array", "moment"]


@dataclass(frozen=True, repr=False)
class Case:
    """What an operator is built from, and what it should amount to."""

    query: Tensor
    key: Tensor
    options: dict[str, Any]

    def __repr__(self) -> str:
        sizes = f"{tuple(self.query.shape)}, {tuple(self.key.shape)}, {self.query.dtype}"
        return f"Case({sizes}, {self.options})"

    def operator(self) -> SoftmaxAttention:
        return SoftmaxAttention(self.query, self.key, **self.options)

    def with_options(self, **changes: Any) -> "Case":
        return replace(self, options=self.options | changes)

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.query.shape[:-3])

    @property
    def heads(self) -> int:
        return self.query.shape[-3]

    @property
    def sizes(self) -> tuple[int, int]:
        return self.query.shape[-2], self.key.shape[-2]

    @property
    def mask(self) -> Mask:
        """The rules in force, the default included: causal with the last query at the last key."""
        if self.options.get("mask") is not None:
            return self.options["mask"]
        queries, keys = self.sizes
        if self.options.get("causal") is False:
            return Mask()
        return Mask(after=0, query_origin=keys - queries)

    def pattern(self) -> Tensor:
        return case_pattern(self)[0]

    def log_normalizer(self) -> Tensor:
        return case_pattern(self)[1]


def case_pattern(case: Case) -> tuple[Tensor, Tensor]:
    """Return the map `(*batch, head, query, key)` and the log of its denominators, in float64."""
    query, key = case.query.double(), case.key.double()
    key = key.repeat_interleave(case.heads // key.shape[-3], dim=-3)
    scale = case.options.get("scale")
    scores = torch.einsum("...hqd,...hkd->...hqk", query, key)
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    softcap = case.options.get("softcap")
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if case.options.get("bias") is not None:
        scores = scores + bias_array(case.options["bias"], case.heads, *case.sizes)
    visible = mask_array(case.mask, case.batch, *case.sizes).unsqueeze(-3)
    scores = torch.where(visible, scores, -torch.inf)
    return _softmax(scores, case.options.get("sinks"))


def _softmax(scores: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """A learned sink is one more column, dropped afterwards; rows without keys are zero."""
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], dim=-1)
    empty = torch.isneginf(scores).all(-1, keepdim=True)
    finite = torch.where(empty, 0.0, scores)  # keeps gradients of empty rows out of the softmax
    pattern = torch.where(empty, 0.0, torch.softmax(finite, dim=-1))
    normalizer = torch.where(empty.squeeze(-1), -torch.inf, torch.logsumexp(finite, dim=-1))
    return (pattern if sinks is None else pattern[..., :-1]), normalizer


def mask_array(mask: Mask, batch: tuple[int, ...], queries: int, keys: int) -> Tensor:
    """Return `(*batch, query, key)`, entry by entry."""
    planes = [
        [[_sees(rules, t, s) for s in range(keys)] for t in range(queries)]
        for rules in (_Rules.of(mask, index) for index in product(*map(range, batch)))
    ]
    return torch.tensor(planes, dtype=torch.bool).reshape(*batch, queries, keys)


@dataclass(frozen=True)
class _Rules:
    """A mask's fields at one place of the batch, its arrays as lists."""

    mask: Mask
    arrays: dict[str, list[Any] | None]

    @classmethod
    def of(cls, mask: Mask, index: tuple[int, ...]) -> "_Rules":
        axes = {"allowed": 2}
        names = ("key_valid", "query_valid", "query_segment", "key_segment")
        names += ("query_block", "key_block", "allowed")
        arrays = {}
        for name in names:
            array = getattr(mask, name)
            if array is not None and array.ndim > axes.get(name, 1):
                for place in index:
                    array = array[place if len(array) > 1 else 0]
            arrays[name] = None if array is None else array.tolist()
        return cls(mask, arrays)


def _sees(rules: _Rules, t: int, s: int) -> bool:
    mask, arrays = rules.mask, rules.arrays
    position, other = t + mask.query_origin, s + mask.key_origin
    near = mask.before is None or position - other <= mask.before
    near = near and (mask.after is None or other - position <= mask.after)
    near = near and (mask.chunk is None or position // mask.chunk == other // mask.chunk)
    if arrays["query_block"] is not None:
        own, its = arrays["query_block"][t], arrays["key_block"][s]
        near = near or (own >= 0 and own == its)
    if arrays["query_segment"] is not None:
        near = near and arrays["query_segment"][t] == arrays["key_segment"][s]
    near = near and (arrays["key_valid"] is None or arrays["key_valid"][s])
    near = near and (arrays["query_valid"] is None or arrays["query_valid"][t])
    return near and (arrays["allowed"] is None or arrays["allowed"][t][s])


def bias_array(bias: Bias, heads: int, queries: int, keys: int) -> Tensor:
    """Return `(*batch, head, query, key)` in float64, entry by entry for the rules on distances."""
    if isinstance(bias, DenseBias):
        return bias.values.double()
    entry: Callable[[int, int, int], float]
    if isinstance(bias, AlibiBias):
        slopes = bias.slopes.tolist()
        entry = lambda h, t, s: slopes[h] * (s - t - bias.offset)  # noqa: E731
    else:
        assert isinstance(bias, RelativeBias)
        table = bias.table.tolist()
        last = len(table[0]) - 1

        def entry(h: int, t: int, s: int) -> float:
            return table[h % len(table)][min(max(bias.zero + s - t, 0), last)]

    rows = [[[entry(h, t, s) for s in range(keys)] for t in range(queries)] for h in range(heads)]
    return torch.tensor(rows, dtype=torch.float64).reshape(heads, queries, keys)


def band_of(pattern: Tensor, width: int, offset: int) -> Tensor:
    """Return `A[t, t + offset - d]` for `0 <= d < width`, 0 outside the map."""
    queries, keys = pattern.shape[-2:]
    band = torch.zeros(*pattern.shape[:-1], width, dtype=pattern.dtype)
    for t, d in _pairs(queries, width):
        if 0 <= t + offset - d < keys:
            band[..., t, d] = pattern[..., t, t + offset - d]
    return band


def _pairs(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    return product(range(rows), range(columns))


def moment(pattern: Tensor, numbers: Tensor) -> Tensor:
    return torch.einsum("...qk,k->...q", pattern, numbers.to(pattern.dtype))
