"""Halo attention (HaloNet): blocks of queries attend to their block and a halo around it.

    blocks of b x b queries, halo h on every side, window w = b + 2h
    s_tj = q_t . k_j / sqrt(d) + q_t . H[row_j - row_t] + q_t . W[column_j - column_t]
    A = softmax over the w^2 keys of the block's window,     y = A V

H and W are learned tables of 2w - 1 rows. Cost O(N w^2 d) for N pixels, against O(N^2 d).

The terms by height and width are products with the query, so they become further coordinates: with
the query `[q / sqrt(d), q . H_r for each row r of the window, q . W_c for each column c]` and the
key `[k, 1 at its row, 1 at its column]` the score is one plain product, attention one fused call.

Reference: Vaswani et al. 2021, arXiv:2103.12731. No code was published. That relative logits are
added after the scaling, are counted between pixels where queries are subsampled, and that keys
outside the image are hidden is our reading; timm lets them stand as zeros (`leaks_padding`).
"""

from dataclasses import dataclass

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from attnscope.attention import Mask, Mixing, SoftmaxAttention, WindowedAttention

__all__ = ["HaloAttention", "HaloBlocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HaloBlocks:
    """How a map is cut: blocks of queries, windows of keys.

    Attributes:
        size: Side of a block, in pixels.
        halo: How far a window reaches beyond its block, on every side.
        stride: Every how many pixels there is a query.

    Example:
        >>> blocks = HaloBlocks(size=2, halo=1)
        >>> blocks.queries((2, 4)).tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7]]
        >>> blocks.keys((2, 4))[0].tolist()[4:12]
        [-1, 0, 1, 2, -1, 4, 5, 6]
    """

    size: int = 8
    halo: int = 3
    stride: int = 1

    @property
    def window(self) -> int:
        """Return the side of a window."""
        return self.size + 2 * self.halo

    def queries(self, grid: tuple[int, int]) -> Int[Tensor, "block query_slot"]:
        """Return the query of each slot of each block of a map of `grid` pixels."""
        rows, columns = (length // self.stride for length in grid)
        side = self.size // self.stride
        return rearrange(
            torch.arange(rows * columns),
            "(down row right column) -> (down right) (row column)",
            down=rows // side,
            row=side,
            column=side,
        )

    def keys(self, grid: tuple[int, int]) -> Int[Tensor, "block key_slot"]:
        """Return the key of each slot of each window, -1 outside of the image."""
        pixels = torch.arange(grid[0] * grid[1]).reshape(1, *grid)
        return self.windows(pad(pixels, 4 * (self.halo,), value=-1))[..., 0]

    def windows(
        self, padded: Float[Tensor, "*batch channel row column"] | Int[Tensor, "channel row column"]
    ) -> Float[Tensor, "*batch block key_slot channel"] | Int[Tensor, "block key_slot channel"]:
        """Return the windows of a map that has the halo around it already."""
        cut = padded.unfold(-2, self.window, self.size).unfold(-2, self.window, self.size)
        return rearrange(
            cut, "... channel down right row column -> ... (down right) (row column) channel"
        )

    def distances(self) -> Int[Tensor, "query place"]:
        """Return the row of a relative table for each query and key place along one axis."""
        query = torch.arange(0, self.size, self.stride)
        return torch.arange(self.window) - query[:, None] + self.window - 1

    def check(self, grid: tuple[int, int]) -> None:
        """Refuse a map that is not whole blocks.

        Raises:
            ValueError: A side of the map is no multiple of the block's.
        """
        if grid[0] % self.size or grid[1] % self.size:
            raise ValueError(
                f"a map of {grid[0]} x {grid[1]} pixels is not whole blocks; both sides have to be "
                f"multiples of {self.size}"
            )


class HaloAttention(nn.Module):
    """Attention of blocks to their windows.

    Args:
        dim: Channels of the features and of queries and keys, all heads together.
        value_dim: Channels of the values and of the output.
        blocks: How the map is cut.
        heads: Number of heads.
        leaks_padding: Whether the zeros outside of the image take part, with their relative logits:
            rows of border blocks then sum to less than 1, and the attention's `row_mass()` is the
            share that stays inside.

    Example:
        >>> attention = HaloAttention(4, 4, HaloBlocks(size=2, halo=1), heads=1)
        >>> corner = attention.attend(torch.zeros(1, 4, 4, 4)).rows([0]).detach()
        >>> round(1 / float(corner.max())), int(corner.count_nonzero())  # of a window of 16
        (9, 9)
    """

    def __init__(
        self,
        dim: int,
        value_dim: int,
        blocks: HaloBlocks,
        heads: int = 8,
        *,
        leaks_padding: bool = False,
    ) -> None:
        super().__init__()
        self.blocks, self.heads, self.leaks_padding = blocks, heads, leaks_padding
        self.head_dim = dim // heads
        self.query = nn.Conv2d(dim, dim, 1, stride=blocks.stride, bias=False)
        self.key = nn.Conv2d(dim, dim, 1, bias=False)
        self.value = nn.Conv2d(dim, value_dim, 1, bias=False)
        self.relative_row = nn.Parameter(torch.empty(2 * blocks.window - 1, self.head_dim))
        self.relative_column = nn.Parameter(torch.empty(2 * blocks.window - 1, self.head_dim))
        self.mixing = Mixing()
        for projection in (self.query, self.key, self.value):
            nn.init.trunc_normal_(projection.weight, std=dim**-0.5)
        for table in (self.relative_row, self.relative_column):
            nn.init.trunc_normal_(table, std=self.head_dim**-0.5)

    def attend(self, features: Float[Tensor, "batch dim row column"]) -> WindowedAttention:
        """Return the attention that the features have to each other.

        Raises:
            ValueError: A side of the map is no multiple of the block's.
        """
        grid = features.shape[-2], features.shape[-1]
        self.blocks.check(grid)
        index = self.blocks.keys(grid).to(features.device)
        query, key = self._queries(features), self._keys(features)
        seen = (index >= 0).expand(len(features), -1, -1)
        mask = Mask() if self.leaks_padding else Mask(key_valid=seen)
        whole = self.blocks.stride == 1
        return WindowedAttention(
            SoftmaxAttention(query, key, 1.0, mask=mask),
            self.blocks.queries(grid).to(features.device),
            index,
            grid[0] * grid[1] // self.blocks.stride**2,
            grid[0] * grid[1],
            offset=0 if whole else None,
            query_axis="patch",
            key_axis="patch",
        )

    def forward(
        self, features: Float[Tensor, "batch dim row column"]
    ) -> Float[Tensor, "batch value_dim some_row some_column"]:
        """Return what the queries read, as a map of them."""
        attention, key_grid = self.attend(features), (features.shape[-2], features.shape[-1])
        rows, columns = (length // self.blocks.stride for length in key_grid)
        values = rearrange(
            self.value(features),
            "batch (head dim) row column -> batch head (row column) dim",
            head=self.heads,
        )
        output = self.mixing(attention, values, grid=(rows, columns), key_grid=key_grid)
        return rearrange(
            output, "batch head (row column) dim -> batch (head dim) row column", row=rows
        )

    def _queries(
        self, features: Float[Tensor, "batch dim row column"]
    ) -> Float[Tensor, "batch block head query_slot coordinate"]:
        """Return queries that carry what they think of each row and column of their window."""
        side = self.blocks.size // self.blocks.stride
        query = rearrange(
            self.query(features),
            "batch (head dim) (down row) (right column) -> batch (down right) head row column dim",
            head=self.heads,
            row=side,
            column=side,
        )
        by_row, by_column = (
            table[self.blocks.distances().to(table.device)]
            for table in (self.relative_row, self.relative_column)
        )
        rows = einsum(query, by_row, "... row column dim, row place dim -> ... row column place")
        columns = einsum(
            query, by_column, "... row column dim, column place dim -> ... row column place"
        )
        loaded = torch.cat([query * self.head_dim**-0.5, rows, columns], dim=-1)
        return rearrange(loaded, "... row column coordinate -> ... (row column) coordinate")

    def _keys(
        self, features: Float[Tensor, "batch dim row column"]
    ) -> Float[Tensor, "batch block head key_slot coordinate"]:
        """Return keys that say in which row and column of their window they stand."""
        window = self.blocks.window
        key = rearrange(
            self.blocks.windows(pad(self.key(features), 4 * (self.blocks.halo,))),
            "batch block slot (head dim) -> batch block head slot dim",
            head=self.heads,
        )
        place = torch.eye(window, dtype=key.dtype, device=key.device)
        row = repeat(place, "row one -> (row column) one", column=window)
        column = repeat(place, "column one -> (row column) one", row=window)
        places = torch.cat([row, column], dim=-1).expand(*key.shape[:-1], -1)
        return torch.cat([key, places], dim=-1)
