"""`WindowTable`: which position of a sequence stands in which slot of which window."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.attention.errors import OperatorError

__all__ = ["WindowTable"]


class WindowTable:
    """A partition of positions into windows of slots, and the way there and back.

    Args:
        index: Position in each slot, -1 where nobody stands; without the batch axes it serves
            every item.
        length: Number of positions.
        batch: Batch axes of the tensors that are carried to and fro.

    Raises:
        OperatorError: A slot names a position that does not exist.

    Example:
        >>> table = WindowTable(torch.tensor([[2, 0], [1, -1]]), 3, torch.Size())
        >>> table.gather(torch.tensor([[[10.0], [20.0], [30.0]]])).flatten().tolist()
        [30.0, 10.0, 20.0, 0.0]
    """

    def __init__(
        self, index: Int[Tensor, "*batch window slot"], length: int, batch: torch.Size
    ) -> None:
        if index.shape[:-2] not in (torch.Size(), batch):
            raise OperatorError(
                f"a table of windows has shape {tuple(index.shape)}; it needs the axes "
                f"(window, slot), alone or behind the batch axes {tuple(batch)}"
            )
        if index.numel() and (int(index.min()) < -1 or int(index.max()) >= length):
            raise OperatorError(
                f"a table of windows names the positions {int(index.min())} to "
                f"{int(index.max())}; there are {length}, from 0 to {length - 1}, or -1 for nobody"
            )
        self.index, self.length, self.batch = index, length, batch
        self.windows, self.slots = index.shape[-2:]
        self._flat = index.reshape(-1, self.windows * self.slots)
        self.has_empty = bool((index < 0).any())

    @property
    def by_item(self) -> Int[Tensor, "item window slot"]:
        """Return the table with one batch axis, of one item if all items share it."""
        return self._flat.reshape(-1, self.windows, self.slots)

    @property
    def has_repeats(self) -> bool:
        """Return whether a position stands in two slots of one window."""
        ordered = self.index.sort(dim=-1).values
        return bool(((ordered.diff(dim=-1) == 0) & (ordered[..., 1:] >= 0)).any())

    @property
    def is_partition(self) -> bool:
        """Return whether no position stands in two slots of any windows."""
        ordered = self._flat.sort(dim=-1).values
        return not bool(((ordered.diff(dim=-1) == 0) & (ordered[..., 1:] >= 0)).any())

    @property
    def present(self) -> Bool[Tensor, "*batch 1 length"]:
        """Return which positions stand anywhere."""
        found = torch.zeros(
            len(self._flat), self.length + 1, dtype=torch.bool, device=self.index.device
        )
        found.scatter_(1, self._flat % (self.length + 1), True)
        found = found[:, : self.length].expand(math.prod(self.batch), -1)
        return found.reshape(*self.batch, 1, self.length)

    def first_slots(self) -> Int[Tensor, "*batch window 1 1 slot"]:
        """Return for each slot the first one of its window that holds the same position."""
        ordered, order = self.index.sort(dim=-1, stable=True)
        place = torch.searchsorted(ordered, self.index.contiguous())
        return order.gather(-1, place)[..., None, None, :]

    def gather(
        self, rows: Float[Tensor, "*batch head length dim"]
    ) -> Float[Tensor, "*batch window head slot dim"]:
        """Return what stands in each slot, 0 where nobody does."""
        stacked = rows.reshape(-1, *rows.shape[-3:])
        places = self._flat.clamp_min(0)
        if len(places) == 1:
            taken = stacked.index_select(2, places[0])
        else:
            heads, width = stacked.shape[1], stacked.shape[3]
            taken = stacked.gather(2, places[:, None, :, None].expand(-1, heads, -1, width))
        if self.has_empty:
            taken = taken.masked_fill((self._flat < 0)[:, None, :, None], 0)
        windows = taken.unflatten(2, (self.windows, self.slots)).transpose(1, 2)
        return windows.reshape(*self.batch, *windows.shape[1:])

    def scatter(
        self, windows: Float[Tensor, "*batch window head slot dim"]
    ) -> Float[Tensor, "*batch head length dim"]:
        """Return for each position the sum of the slots in which it stands."""
        stacked = windows.reshape(-1, *windows.shape[-4:]).transpose(1, 2).flatten(2, 3)
        total = stacked.new_zeros(*stacked.shape[:2], self.length + 1, stacked.shape[-1])
        places = self._flat % (self.length + 1)  # nobody's share goes to one row more, then away
        if len(places) == 1:
            total = total.index_add(2, places[0], stacked)
        else:
            index = places[:, None, :, None].expand_as(stacked)
            total = total.scatter_add(2, index, stacked)
        return total[:, :, : self.length].reshape(
            *self.batch, stacked.shape[1], self.length, stacked.shape[-1]
        )

    def places_among(self, chosen: Int[Tensor, " some"]) -> Int[Tensor, "item window slot"]:
        """Return where each slot's position stands among chosen ones, -1 where it does not.

        The leading axis has one item for a table that all items of the batch share.
        """
        lookup = torch.full((self.length + 1,), -1, device=self.index.device)
        lookup[chosen] = torch.arange(len(chosen), device=self.index.device)
        return lookup[self.by_item]
