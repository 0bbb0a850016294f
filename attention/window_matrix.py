"""`matrix_of_windows`: windows written into a matrix, some at a time."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnscope.attention.window_choice import Inner, chosen_windows

__all__ = ["matrix_of_windows"]

_BLOCK_ELEMENTS = 2**22
"""Entries of windows that are held at once (16 MiB in float32)."""


def matrix_of_windows(
    inner: Inner,
    tables: tuple[Int[Tensor, "item window query_slot"], Int[Tensor, "item window key_slot"]],
    size: tuple[int, int],
    place: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "*batch head row column"]:
    """Return a matrix to which the wanted entries of the windows are added.

    Args:
        inner: Attention within the windows, `(*batch, window, head, query_slot, key_slot)`.
        tables: For each query slot and each key slot a number, -1 where it is not wanted; one item
            of them may serve the whole batch.
        size: Rows and columns of the matrix.
        place: From the numbers of a query and a key, the place in the matrix; -1 for none.
    """
    batch, (window_count, heads) = inner.shape[:-4], inner.shape[-4:-2]
    items, area = batch.numel(), size[0] * size[1]
    rows, columns = (table.expand(items, -1, -1).flatten(0, 1) for table in tables)
    total = torch.zeros(heads, items * area + 1, dtype=inner.dtype, device=inner.device)
    for windows, query_slots, key_slots in _chunks(rows, columns, heads):
        some = chosen_windows(inner, windows)
        entries = some.tile(query_slots, key_slots, limit=some.shape.numel())
        row, column = rows[windows][:, query_slots, None], columns[windows][:, None, key_slots]
        target = place(row, column)
        wanted = (row >= 0) & (column >= 0) & (target >= 0)
        target = target + (windows // window_count * area)[:, None, None]
        target = torch.where(wanted, target, items * area)  # the last place is thrown away
        total.index_add_(1, target.flatten(), entries.transpose(0, 1).flatten(1))
    matrix = total[:, :-1].reshape(heads, items, *size).transpose(0, 1)
    return matrix.reshape(*batch, heads, *size)


def _chunks(rows: Tensor, columns: Tensor, heads: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield windows, query slots and key slots that hold what is wanted, few entries at a time."""
    active = ((rows >= 0).any(-1) & (columns >= 0).any(-1)).nonzero().squeeze(-1)
    if not len(active):
        return
    query_slots = (rows[active] >= 0).any(0).nonzero().squeeze(-1)
    key_slots = (columns[active] >= 0).any(0).nonzero().squeeze(-1)
    for some_slots in query_slots.split(max(16, _BLOCK_ELEMENTS // (heads * len(key_slots)))):
        entries = heads * len(some_slots) * len(key_slots)
        for windows in active.split(max(1, _BLOCK_ELEMENTS // entries)):
            yield windows, some_slots, key_slots
