"""Masks of transformers as rules instead of `T x T` arrays.

The library composes its masks from small index functions and hands the composition to whatever is
registered for the active attention implementation. We read the composition back into a `Mask`,
check it against the function on sampled rows, and pass it on inside a placeholder tensor that has
the shape of a mask and the memory of one number.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnscope.attention import TILE_LIMIT, Mask
from attnscope.probes.errors import CaptureError

__all__ = ["lazy_mask", "mask_inside"]

IndexFunction = Callable[..., Any]
_ATTRIBUTE = "_attnscope_mask"
_CHECKED_ROWS = 48


def lazy_mask(  # noqa: PLR0913 - the signature that the library calls
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: IndexFunction | None = None,
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    **_: Any,
) -> Tensor:
    """Return a stand-in for the mask array, which carries the mask as rules.

    Its numbers are NaN, so that a model which computes with the mask instead of passing it on is
    noticed (see `mask_inside`) and never silently unmasked.
    """
    sizes = (q_length, kv_length, int(q_offset), int(kv_offset))
    mask = _translated(mask_function, sizes, torch.device(device))
    if attention_mask is not None:
        padded = torch.nn.functional.pad(
            attention_mask, (0, max(0, kv_length + sizes[3] - attention_mask.shape[-1]))
        )
        valid = padded[:, sizes[3] : sizes[3] + kv_length].bool()
        if not bool(valid.all()):
            mask = replace(mask, key_valid=valid)
    unreadable = torch.full((), torch.nan, dtype=dtype, device=device)
    placeholder = unreadable.expand(batch_size, 1, q_length, kv_length)
    setattr(placeholder, _ATTRIBUTE, mask)
    return placeholder


def mask_inside(attention_mask: Tensor, keys: int) -> Mask | Tensor:
    """Return the rules that a mask argument carries, or the array that the model made itself.

    Raises:
        CaptureError: The model computed with the placeholder, so that the rules are lost.
    """
    mask = getattr(attention_mask, _ATTRIBUTE, None)
    if mask is not None:
        return mask
    if attention_mask.is_floating_point() and bool(attention_mask[..., :1, :1].isnan().any()):
        raise CaptureError(
            "the model computes with its attention mask before the attention function sees it, so "
            "its rules are lost; pass a 4-D mask of your own as attention_mask"
        )
    return attention_mask[..., :keys]


def _translated(
    function: IndexFunction | None, sizes: tuple[int, int, int, int], device: torch.device
) -> Mask:
    queries, keys, query_origin, key_origin = sizes
    if function is None:
        return Mask(after=0, query_origin=query_origin, key_origin=key_origin)
    mask = _read(function)
    if mask is not None:
        placed = replace(mask, query_origin=query_origin, key_origin=key_origin)
        mask = _cut_arrays(placed, sizes).to(device)
        if _agrees(mask, function, sizes, device):
            return mask
    if queries * keys > TILE_LIMIT:
        raise CaptureError(
            "the model's mask is none of the known rules (causal, window, chunk, padding, packed, "
            f"blocks), and {queries:,} x {keys:,} entries are too many to hold one by one"
        )
    allowed = _evaluate(function, torch.arange(queries, device=device), sizes)
    return Mask(allowed=allowed, query_origin=query_origin, key_origin=key_origin)


def _agrees(
    mask: Mask, function: IndexFunction, sizes: tuple[int, int, int, int], device: torch.device
) -> bool:
    """Return whether rules that were read give what their function gives, on sampled rows."""
    queries, keys, _, _ = sizes
    rows = torch.linspace(0, queries - 1, min(queries, _CHECKED_ROWS), device=device).long()
    expected = _evaluate(function, rows, sizes)
    if mask.leaves_open(slice(0, queries), slice(0, keys)):  # as at each step of decoding
        return bool(expected.all())
    read = mask.tile(rows, torch.arange(keys, device=device))
    return torch.equal(read.reshape(expected.shape), expected)


def _evaluate(function: IndexFunction, rows: Tensor, sizes: tuple[int, int, int, int]) -> Tensor:
    _, keys, query_origin, key_origin = sizes
    zero = torch.zeros(1, 1, dtype=torch.long, device=rows.device)
    key = torch.arange(keys, device=rows.device)[None, :] + key_origin
    visible = torch.as_tensor(
        function(zero, zero, rows[:, None] + query_origin, key), device=rows.device
    )
    return visible.bool().expand(len(rows), keys)


def _read(function: IndexFunction) -> Mask | None:
    """Return the rules of a composed index function, or None if one of its pieces is unknown."""
    closed = getattr(function, "__closure__", None)
    held = dict(inspect.getclosurevars(function).nonlocals) if closed else {}
    kind = getattr(function, "__qualname__", "").split(".")[0]
    if kind == "and_masks":
        return _all_of([_read(piece) for piece in held["mask_functions"]])
    if kind == "or_masks":
        return _any_of([_read(piece) for piece in held["mask_functions"]])
    reader = _PIECES.get(kind)
    return None if reader is None else reader(held)


def _all_of(masks: list[Mask | None]) -> Mask | None:
    total = Mask()
    for mask in masks:
        if mask is None or (mask.query_block is not None and not total.hides_nothing):
            return None
        arrays, _ = mask.parts()
        if any(getattr(total, name) is not None for name in arrays):
            return None
        total = replace(
            total,
            before=_smallest(total.before, mask.before),
            after=_smallest(total.after, mask.after),
            chunk=mask.chunk if total.chunk is None else total.chunk,
            **arrays,
        )
    return total


def _any_of(masks: list[Mask | None]) -> Mask | None:
    """Return `rules or same block`, the one union that a `Mask` knows."""
    rules, blocks = masks if len(masks) == 2 else (None, None)
    if rules is None or blocks is None or rules.parts()[0]:
        return None
    if blocks.query_block is None or blocks.after != -1:
        return None
    return replace(rules, query_block=blocks.query_block, key_block=blocks.key_block)


def _smallest(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _chunks(held: dict[str, Any]) -> Mask | None:
    return (
        None
        if bool(torch.as_tensor(held["left_padding"]).any())
        else Mask(chunk=int(held["chunk_size"]))
    )


def _packed(held: dict[str, Any]) -> Mask:
    return Mask(
        query_segment=held["packed_sequence_mask"], key_segment=held["packed_sequence_mask"]
    )


def _blocks(held: dict[str, Any]) -> Mask:
    # `after = -1` with no query at a smaller position: nothing but the blocks themselves.
    return Mask(
        before=-1,
        after=-1,
        query_block=held["block_sequence_ids"],
        key_block=held["block_sequence_ids"],
    )


_PIECES: dict[str, Callable[[dict[str, Any]], Mask | None]] = {
    "causal_mask_function": lambda held: Mask(after=0),
    "bidirectional_mask_function": lambda held: Mask(),
    "sliding_window_overlay": lambda held: Mask(before=int(held["sliding_window"]) - 1),
    "sliding_window_bidirectional_overlay": lambda held: Mask(
        before=int(held["sliding_window"]), after=int(held["sliding_window"])
    ),
    "chunked_overlay": _chunks,
    "blockwise_overlay": _blocks,
    "padding_mask_function": lambda held: Mask(key_valid=held["padding_mask"].bool()),
    "packed_sequence_mask_function": _packed,
    # Positions restart inside each packed sequence; the rules are relative, so they stay the same.
    "remap_positions_for_packed_sequence": lambda held: _read(held["mask_function"]),
}


def _cut_arrays(mask: Mask, sizes: tuple[int, int, int, int]) -> Mask:
    """Cut the library's arrays, which run over all positions, to the queries and keys at hand."""
    queries, keys, query_origin, key_origin = sizes
    arrays, _ = mask.parts()
    if not arrays:
        return mask
    spans = {
        "query": slice(query_origin, query_origin + queries),
        "key": slice(key_origin, key_origin + keys),
    }
    return replace(
        mask, **{name: array[..., spans[name.split("_")[0]]] for name, array in arrays.items()}
    )
