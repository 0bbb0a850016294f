"""The kernels of `tile_statistics` in Triton: entries of a map made tile by tile, and summed.

The map is never stored: each program makes `exp(s - lse)` of the tiles of its own rows or of its
own columns, and adds them up in registers. Rows and columns are two passes, because one pass over
both would need atomic additions, whose order (and so whose rounding) changes from run to run, or
partial sums of O(T^2 / block) memory; the second pass costs one product of queries and keys.

Triton is part of PyTorch's builds for GPUs. Without it this module can be imported, not called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.scores import Scores

__all__ = ["launch_band", "launch_column_sums", "launch_row_moments"]

Range = tuple[int, int]
"""The nearest and the furthest distance of the entries that count."""

triton: Any = import_module("triton") if find_spec("triton") else None
tl: Any = import_module("triton.language") if triton else None


def _jit(kernel: Callable[..., Any]) -> Any:
    return kernel if triton is None else triton.jit(kernel)


# Kernels have annotations in Triton's own language, hence no_type_check. Their tuples are: strides
# (item, head, row); sizes (heads, query heads per key head, queries, keys, numbers of a query); and
# rules (key index at query 0, nearest distance, furthest distance).


@_jit
@no_type_check
def _rows(  # noqa: PLR0913
    base, strides, place, first, count, width, block: tl.constexpr, dim: tl.constexpr
):  # fmt: skip
    """Return rows of queries or keys from `first` on, zeros where there are none."""
    row = tl.arange(0, block)[:, None]
    column = tl.arange(0, dim)[None, :]
    # In 64 bits, because long contexts hold more than 2^31 numbers.
    start = place[0] * strides[0] + place[1] * strides[1] + tl.cast(first, tl.int64) * strides[2]
    inside = (first + row < count) & (column < width)
    return tl.load(base + start + row * strides[2] + column, mask=inside, other=0.0)


@_jit
@no_type_check
def _places(sizes):
    """Return the pair of item and head of this program, and its place among queries and keys."""
    pair = tl.cast(tl.program_id(1), tl.int64)
    item, head = pair // sizes[0], pair % sizes[0]
    return pair, (item, head), (item, head // sizes[1])


@_jit
@no_type_check
def _totals(normalizer, pair, row, sizes):
    """Return the log normalizers of rows, such that a row without keys holds nothing."""
    total = tl.load(normalizer + pair * sizes[2] + row, mask=row < sizes[2], other=-float("inf"))
    return tl.where(total > -float("inf"), total, 1e30)


@_jit
@no_type_check
def _logarithms(own, other, apart, inside, total, scale, rules):  # noqa: PLR0913
    """Return the logarithms of the entries of a tile, a finite nothing where they do not count.

    -inf would make the product of a hidden entry and its logarithm NaN.
    """
    seen = (apart >= rules[1]) & (apart <= rules[2]) & inside
    score = tl.dot(own, tl.trans(other), input_precision="ieee") * scale
    return tl.where(seen, score - total, -1e30)


@_jit
@no_type_check
def _row_moments(  # noqa: PLR0913
    query, key, normalizer, moments, query_strides, key_strides, sizes, rules, scale,
    block_queries: tl.constexpr, block_keys: tl.constexpr, dim: tl.constexpr,
):  # fmt: skip
    """Sum the entries, times their distance and times their surprise, along a block of rows."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)  # under causality the longest rows first
    first = block * block_queries
    pair, place, key_place = _places(sizes)
    own = _rows(query, query_strides, place, first, sizes[2], sizes[4], block_queries, dim)
    row = first + tl.arange(0, block_queries)
    total = _totals(normalizer, pair, row, sizes)
    position = tl.cast(row + rules[0], tl.float32)  # exact up to 2^24 tokens, and fast
    mass = tl.zeros((block_queries,), tl.float32)
    distance = tl.zeros((block_queries,), tl.float32)
    surprise = tl.zeros((block_queries,), tl.float32)
    low = tl.maximum(first + rules[0] - rules[2], 0) // block_keys * block_keys
    high = tl.minimum(first + block_queries + rules[0] - rules[1], sizes[3])
    for start in range(low, high, block_keys):
        other = _rows(key, key_strides, key_place, start, sizes[3], sizes[4], block_keys, dim)
        column = start + tl.arange(0, block_keys)
        apart = position[:, None] - tl.cast(column, tl.float32)[None, :]
        inside = (column < sizes[3])[None, :]
        logarithm = _logarithms(own, other, apart, inside, total[:, None], scale, rules)
        entry = tl.exp(logarithm)
        mass += tl.sum(entry, 1)
        distance += tl.sum(entry * apart, 1)
        surprise -= tl.sum(entry * logarithm, 1)
    number = tl.cast(tl.num_programs(1), tl.int64) * sizes[2]
    out = moments + pair * sizes[2] + row
    tl.store(out, mass, mask=row < sizes[2])
    tl.store(out + number, distance, mask=row < sizes[2])
    tl.store(out + number * 2, surprise, mask=row < sizes[2])


@_jit
@no_type_check
def _column_sums(  # noqa: PLR0913
    query, key, normalizer, weights, sums, query_strides, key_strides, sizes, rules, scale,
    block_queries: tl.constexpr, block_keys: tl.constexpr, dim: tl.constexpr,
):  # fmt: skip
    """Sum the entries, times the weight of their query, along a block of columns."""
    first = tl.program_id(0) * block_keys  # causal: the first columns are the longest
    pair, place, key_place = _places(sizes)
    own = _rows(key, key_strides, key_place, first, sizes[3], sizes[4], block_keys, dim)
    column = first + tl.arange(0, block_keys)
    position = tl.cast(column - rules[0], tl.float32)
    received = tl.zeros((block_keys,), tl.float32)
    low = tl.maximum(first + rules[1] - rules[0], 0) // block_queries * block_queries
    high = tl.minimum(first + block_keys + rules[2] - rules[0], sizes[2])
    for start in range(low, high, block_queries):
        other = _rows(query, query_strides, place, start, sizes[2], sizes[4], block_queries, dim)
        row = start + tl.arange(0, block_queries)
        total = _totals(normalizer, pair, row, sizes)
        weight = tl.load(weights + pair * sizes[2] + row, mask=row < sizes[2], other=0.0)
        apart = tl.cast(row, tl.float32)[None, :] - position[:, None]
        inside = (row < sizes[2])[None, :]
        logarithm = _logarithms(own, other, apart, inside, total[None, :], scale, rules)
        received += tl.sum(tl.exp(logarithm) * weight[None, :], 1)
    tl.store(sums + pair * sizes[3] + column, received, mask=column < sizes[3])


@_jit
@no_type_check
def _band(  # noqa: PLR0913
    query, key, normalizer, band, reach, query_strides, key_strides, sizes, rules, scale,
    block_queries: tl.constexpr, block_keys: tl.constexpr, dim: tl.constexpr,
):  # fmt: skip
    """Write the entries of a block of rows to the place of their distance in the band."""
    first = tl.program_id(0) * block_queries
    pair, place, key_place = _places(sizes)
    own = _rows(query, query_strides, place, first, sizes[2], sizes[4], block_queries, dim)
    row = first + tl.arange(0, block_queries)
    total = _totals(normalizer, pair, row, sizes)
    out = band + ((pair * sizes[2] + row) * reach)[:, None]
    low = tl.maximum(first + rules[0] - rules[2], 0) // block_keys * block_keys
    high = tl.minimum(first + block_queries + rules[0] - rules[1], sizes[3])
    for start in range(low, high, block_keys):
        other = _rows(key, key_strides, key_place, start, sizes[3], sizes[4], block_keys, dim)
        column = start + tl.arange(0, block_keys)
        apart = (row + rules[0])[:, None] - column[None, :]
        inside = (column < sizes[3])[None, :]
        logarithm = _logarithms(own, other, apart, inside, total[:, None], scale, rules)
        entry = tl.exp(logarithm)
        tl.store(out + apart, entry, mask=entry > 0)  # the band is zeros before


def launch_row_moments(
    scores: Scores, normalizer: Float[Tensor, "batch head query"], distances: Range
) -> Float[Tensor, "3 batch head query"]:
    """Return mass, distance and surprise of the rows' entries within a range of distances."""
    moments = normalizer.new_empty(3, *normalizer.shape)
    _launch(_row_moments, scores, (normalizer.contiguous(), moments), distances, by_row=True)
    return moments


def launch_column_sums(
    scores: Scores,
    normalizer: Float[Tensor, "batch head query"],
    weights: Float[Tensor, "batch head query"],
    distances: Range,
) -> Float[Tensor, "batch head key"]:
    """Return the sums over weighted queries of the entries within a range of distances."""
    batch, heads, _, keys = scores.shape
    sums = normalizer.new_empty(batch, heads, keys)
    arrays = normalizer.contiguous(), weights.to(normalizer.dtype).contiguous(), sums
    _launch(_column_sums, scores, arrays, distances, by_row=False)
    return sums


def launch_band(
    scores: Scores, normalizer: Float[Tensor, "batch head query"], distances: Range, width: int
) -> Float[Tensor, "batch head query {width}"]:
    """Return the entries by distance, from a range that lies in the band; zeros elsewhere."""
    band = normalizer.new_zeros(*normalizer.shape, width)
    _launch(_band, scores, (normalizer.contiguous(), band, width), distances, by_row=True)
    return band


def _launch(
    kernel: Any,
    scores: Scores,
    arguments: tuple[Tensor | int, ...],
    distances: Range,
    *,
    by_row: bool,
) -> None:
    batch, heads, queries, keys = scores.shape
    query, key = (
        part if part.stride(-1) == 1 else part.contiguous() for part in (scores.query, scores.key)
    )
    width = query.shape[-1]
    dim = max(16, _power_of_two(width))  # what the matrix units take
    blocks = _block_sizes(dim * query.element_size(), by_row=by_row)
    length, step = (queries, blocks[0]) if by_row else (keys, blocks[1])
    with torch.cuda.device_of(query):  # which need not be the current device
        kernel[(-(-length // step), batch * heads)](
            query,
            key,
            *arguments,
            query.stride()[:3],
            key.stride()[:3],
            (heads, heads // key.shape[1], queries, keys, width),
            (scores.mask.offset, *distances),
            scores.scale,
            block_queries=blocks[0],
            block_keys=blocks[1],
            dim=dim,
            num_warps=8 if max(blocks) > 32 else 4,
            enable_fp_fusion=True,
        )


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _block_sizes(row_bytes: int, *, by_row: bool) -> tuple[int, int]:
    """Return the queries and the keys of a tile: one block is held, the others pass by it.

    With what Triton keeps in flight, every kernel stays below the 99 KiB of shared memory that a
    block may have on the smallest GPU of compute capability 8.
    """
    own, other = (128, 64) if row_bytes <= 128 else (64, 64) if row_bytes <= 256 else (32, 32)
    if row_bytes > 512:
        own, other = 16, 16
    return (own, other) if by_row else (other, own)
