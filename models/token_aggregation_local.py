"""Local-region self-attention (CATANet): attention inside overlapping patches, then their mean.

Patches of p x p tokens start every p - 2 tokens; the last one is moved back into the map. Each
token is a query in every patch that it lies in, and reads the mean of what it read there. As
released, the mean halves every overlap of two neighbors; where the last patch was moved back, three
patches meet and some tokens keep less than their whole: `cover` says how much, and both the
attention's rows and the residual branch are scaled by it. Cost O(N p^2 d) per head.

Reference: Liu et al. 2025, arXiv:2503.06896; the details are those of the released code.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnscope.attention import (
    GroupedAttention,
    IndexedAttention,
    Mixing,
    SoftmaxAttention,
    WindowedAttention,
)
from attnscope.models.token_aggregation import FeedForward

__all__ = ["LocalAttention", "Overlap", "overlapping_patches"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """Patches that overlap, and how their tokens are averaged.

    Attributes:
        tokens: Token at each place of each patch.
        places: Places of each token, counted over all patches; -1 where it has no more.
        shares: Weight of each place of a token.
    """

    tokens: Int[Tensor, "patch place"]
    places: Int[Tensor, "token copy"]
    shares: Float[Tensor, " token"]

    @property
    def cover(self) -> Float[Tensor, " token"]:
        """Return the sum of each token's shares: 1 where the mean is one."""
        return self.shares * (self.places >= 0).sum(-1)


def overlapping_patches(grid: tuple[int, int], size: int) -> Overlap:
    """Return the patches of `size` x `size` tokens that cover a map, two tokens of overlap each.

    Raises:
        ValueError: The map is smaller than a patch.

    Example:
        >>> overlapping_patches((16, 30), 16).cover.unique().tolist()
        [1.0]
        >>> overlapping_patches((16, 31), 16).cover.unique().tolist()  # 3 patches, halved twice
        [0.75, 1.0]
    """
    (top, rows, row_share), (left, columns, column_share) = (
        _overlapping_runs(length, size) for length in grid
    )
    inside = torch.arange(size)
    down, right = top[:, None] + inside, left[:, None] + inside
    tokens = rearrange(
        down[:, None, :, None] * grid[1] + right[None, :, None, :],
        "row column down right -> (row column) (down right)",
    )
    # A token's place in the patch of run i and j: where it lies in either run.
    patch = rows[:, None, :, None] // size * len(left) + columns[None, :, None, :] // size
    place = rows[:, None, :, None] % size * size + columns[None, :, None, :] % size
    exists = (rows[:, None, :, None] >= 0) & (columns[None, :, None, :] >= 0)
    places = rearrange(
        torch.where(exists, patch * size**2 + place, -1),
        "row column down right -> (row column) (down right)",
    )
    shares = rearrange(row_share[:, None] * column_share, "row column -> (row column)")
    return Overlap(tokens=tokens, places=places, shares=shares)


def _overlapping_runs(
    length: int, size: int
) -> tuple[Int[Tensor, " run"], Int[Tensor, "position copy"], Float[Tensor, " position"]]:
    """Return starts of runs along one axis, the places of each position, and its share of each."""
    if length < size:
        raise ValueError(f"patches of {size} tokens do not fit into {length}; enlarge the image")
    step = size - 2
    marks = torch.arange(0, length + step - size, step)
    starts = marks.clamp_max(length - size)
    position = torch.arange(length)[:, None]
    inside = (position >= starts) & (position < starts + size)
    places = torch.where(inside, torch.arange(len(starts)) * size + position - starts, -1)
    # The overlap of each run with the one before it, as far as that would have reached unmoved.
    halved = (position >= starts[1:]) & (position < marks[1:] + 2)
    copies = int(inside.sum(-1).max())
    return starts, places.sort(dim=-1, descending=True).values[:, :copies], 0.5 ** halved.sum(-1)


class LocalAttention(nn.Module):
    """Attention inside overlapping patches and an MLP, each a residual branch.

    Args:
        channels: Channels, which the heads divide.
        width: Channels of queries and keys, which the heads divide.
        hidden: Hidden channels of the MLP.
        heads: Heads.
        size: Side of a patch.
    """

    def __init__(self, channels: int, width: int, hidden: int, heads: int, *, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.norm, self.mlp_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query, self.key = (nn.Linear(channels, width, bias=False) for _ in range(2))
        self.value, self.projection = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.mixing = Mixing()
        self.mlp = FeedForward(channels, hidden)

    def attention(
        self, tokens: Float[Tensor, "batch token channel"], overlap: Overlap
    ) -> GroupedAttention:
        """Return the mean over patches of the attention inside each, over tokens.

        Its groups are the places of all patches: a token reads the mean of its own places, and
        each place attends to the tokens of its patch.
        """
        query, key = (
            rearrange(
                part(tokens)[:, overlap.tokens],
                "batch patch place (head dim) -> batch patch head place dim",
                head=self.heads,
            )
            for part in (self.query, self.key)
        )
        count = overlap.tokens.numel()
        numbers = torch.arange(count, device=tokens.device).reshape(overlap.tokens.shape)
        inner = SoftmaxAttention(query, key, causal=False)
        length = tokens.shape[1]
        spread = WindowedAttention(
            inner, numbers, overlap.tokens, count, length, query_axis="group", key_axis="patch"
        )
        shares = (overlap.shares.unsqueeze(-1) * (overlap.places >= 0)).to(spread.dtype)
        read = IndexedAttention(
            shares.expand(len(tokens), 1, -1, -1),
            overlap.places,
            count,
            query_axis="patch",
            key_axis="group",
        )
        return GroupedAttention(read, spread)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the next features, of the same shape.

        Raises:
            ValueError: The map is smaller than a patch.
        """
        grid = features.shape[-2], features.shape[-1]
        overlap = _moved(overlapping_patches(grid, self.size), features.device)
        tokens = rearrange(features, "batch channel row column -> batch (row column) channel")
        normal = self.norm(tokens)
        values = rearrange(
            self.value(normal), "batch token (head dim) -> batch head token dim", head=self.heads
        )
        output = self.mixing(self.attention(normal, overlap), values, grid=grid)
        mixed = self.projection(rearrange(output, "batch head token dim -> batch token (head dim)"))
        tokens = tokens * overlap.cover.to(tokens.dtype).unsqueeze(-1) + mixed
        tokens = tokens + self.mlp(self.mlp_norm(tokens), grid)
        return rearrange(
            tokens, "batch (row column) channel -> batch channel row column", row=grid[0]
        )


def _moved(overlap: Overlap, device: torch.device) -> Overlap:
    return Overlap(
        tokens=overlap.tokens.to(device),
        places=overlap.places.to(device),
        shares=overlap.shares.to(device),
    )
