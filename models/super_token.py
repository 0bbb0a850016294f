"""Super token attention (SViT): pixels attend through a few super tokens, `T = Q A Qbar^T`.

    S0 = mean of each cell of size x size pixels
    Q(i, s) = softmax over the 3 x 3 cells s around i's own of  x_i . S0_s / sqrt(C)      (N, 9)
    S_s = sum_i Qbar(i, s) x_i,     Qbar = Q, each column divided by its sum
    A_h = softmax(q(S) k(S)^T / sqrt(d))                                                 (M, M)
    y = (concat_h Q A_h Qbar^T v_h(x)) W + (sum_s Q) b

Cost O(9 N C + M^2 C) for N pixels and M super tokens, against O(N^2 C). Q is made without gradient.

Reference: Huang et al. 2023, arXiv:2211.11167; the details are those of the released code. It pools
first and projects the super tokens to values; here each pixel has its value, which is then pooled.
The map is linear, so the results are the same, and the attention maps pixels to pixels.
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, linear, pad

from attnscope.attention import (
    AttentionOperator,
    GroupedAttention,
    IndexedAttention,
    Mixing,
    SoftmaxAttention,
)

__all__ = ["SuperTokenAttention", "cells_around", "pixels_around", "super_tokens"]


def cells_around(cell_grid: tuple[int, int]) -> Int[Tensor, "cell 9"]:
    """Return the 3 x 3 cells around each cell in raster order, -1 where the grid has ended.

    Example:
        >>> cells_around((1, 2)).tolist()
        [[-1, -1, -1, -1, 0, 1, -1, -1, -1], [-1, -1, -1, 0, 1, -1, -1, -1, -1]]
    """
    rows, columns = cell_grid
    cells = torch.arange(rows * columns).reshape(rows, columns)
    bordered = pad(cells, (1, 1, 1, 1), value=-1)
    around = bordered.unfold(0, 3, 1).unfold(1, 3, 1)
    return rearrange(around, "row column down right -> (row column) (down right)")


def pixels_around(cell_grid: tuple[int, int], size: int) -> Int[Tensor, "cell 9 pixel"]:
    """Return the pixels of the 3 x 3 cells around each cell, -1 where the grid has ended."""
    rows, columns = (length * size for length in cell_grid)
    pixels = rearrange(
        torch.arange(rows * columns),
        "(row down column right) -> (row column) (down right)",
        row=cell_grid[0],
        column=cell_grid[1],
        down=size,
    )
    cells = cells_around(cell_grid)
    return pixels[cells].masked_fill((cells < 0).unsqueeze(-1), -1)


def super_tokens(
    features: Float[Tensor, "batch channel row column"], size: int, iterations: int = 1
) -> tuple[IndexedAttention, IndexedAttention]:
    """Return `Q` (pixel x super token) and `Qbar^T` (super token x pixel), without gradient.

    A slot outside the grid has the logit 0 and takes its share of the softmax, but returns nothing:
    rows of Q at the border sum to less than 1. That leak is the mechanism's own.

    Args:
        features: A map of whole cells.
        size: Side of a cell.
        iterations: How often super tokens and Q are found in turn; the releases take 1.

    Example:
        >>> read, spread = super_tokens(torch.zeros(1, 1, 4, 4), 2)  # every slot weighs 1/9
        >>> round(9 * float(read.row_mass().max())), spread.row_mass().flatten().tolist()
        (4, [1.0, 1.0, 1.0, 1.0])
    """
    with torch.no_grad():
        grid = features.shape[-2] // size, features.shape[-1] // size
        tokens = rearrange(features, "batch channel row column -> batch 1 (row column) channel")
        centers = rearrange(
            avg_pool2d(features, size), "batch channel row column -> batch 1 (row column) channel"
        )
        read = _read(tokens, centers, grid, size)
        spread = _spread(read, grid, size)
        for _ in range(iterations - 1):
            read = _read(tokens, spread.apply(tokens), grid, size)
            spread = _spread(read, grid, size)
    return read, spread


def _read(tokens: Tensor, centers: Tensor, grid: tuple[int, int], size: int) -> IndexedAttention:
    sizes = {"row": grid[0], "column": grid[1], "down": size, "right": size}
    around = cells_around(grid).to(tokens.device)
    cells = rearrange(
        tokens,
        "batch 1 (row down column right) channel -> batch (row column) (down right) channel",
        **sizes,
    )
    # Cells outside are vectors of zeros, so that their logits are 0.
    neighbors = pad(centers.squeeze(1), (0, 0, 0, 1))[:, around]
    logits = cells @ neighbors.mT * tokens.shape[-1] ** -0.5
    weights = logits.softmax(-1).masked_fill((around < 0).unsqueeze(-2), 0.0)
    weights = rearrange(
        weights,
        "batch (row column) (down right) slot -> batch 1 (row down column right) slot",
        **sizes,
    )
    index = repeat(around, "(row column) slot -> (row down column right) slot", **sizes)
    return IndexedAttention(weights, index, centers.shape[-2], query_axis="patch", key_axis="group")


def _spread(read: IndexedAttention, grid: tuple[int, int], size: int) -> IndexedAttention:
    index = pixels_around(grid, size).to(read.device)
    # A pixel in the cell at place p around a super token sees that token at its own place 8 - p.
    places = (index * 9 + 8 - torch.arange(9, device=read.device)[:, None]).clamp_min(0)
    shares = read.weights.flatten(-2)[..., places].masked_fill(index < 0, 0.0).flatten(-2)
    shares = shares / (shares.sum(-1, keepdim=True) + 1e-12)
    return IndexedAttention(
        shares, index.flatten(-2), read.queries, query_axis="group", key_axis="patch"
    )


class SuperTokenAttention(nn.Module):
    """Attention of pixels through super tokens; with cells of one pixel, plain attention.

    Args:
        dim: Channels.
        heads: Heads, which divide the channels.
        size: Side of a cell.
        iterations: How often the super tokens are sampled.

    Example:
        >>> module = SuperTokenAttention(dim=4, heads=2, size=2)
        >>> attention = module.attention(torch.zeros(1, 4, 6, 6))  # 3 x 3 cells of 2 x 2 pixels
        >>> [round(9 * x) for x in attention.row_mass()[0, 0, [0, 2, 14]].tolist()]
        [4, 6, 9]
    """

    def __init__(self, dim: int, heads: int, size: int, iterations: int = 1) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be divided among {heads} heads")
        self.heads, self.size, self.iterations = heads, size, iterations
        self.query, self.key, self.value, self.projection = (nn.Linear(dim, dim) for _ in range(4))
        self.mixing = Mixing()

    def attention(self, features: Float[Tensor, "batch channel row column"]) -> AttentionOperator:
        """Return the operator `Q A Qbar^T` over the pixels of a map of whole cells."""
        if self.size == 1:
            tokens = rearrange(features, "batch channel row column -> batch (row column) channel")
            return self._softmax(tokens, "patch")
        read, spread = super_tokens(features, self.size, self.iterations)
        tokens = rearrange(features, "batch channel row column -> batch 1 (row column) channel")
        mix = self._softmax(spread.apply(tokens).squeeze(1), "group")
        return GroupedAttention(read, spread, mix)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the mixed features.

        A map that is not of whole cells is padded with zeros below and on the right, as released;
        the padding then takes part as pixels, in the attention too, and is cut off at the end.
        """
        rows, columns = features.shape[-2:]
        features = pad(features, (0, -columns % self.size, 0, -rows % self.size))
        grid = features.shape[-2:]
        attention = self.attention(features)
        tokens = rearrange(features, "batch channel row column -> batch (row column) channel")
        output = self.mixing(attention, self._split(self.value(tokens)), grid=grid)
        output = rearrange(output, "batch head token dim -> batch token (head dim)")
        # The released module projects the super tokens, so that its bias leaks as they do.
        output = linear(output, self.projection.weight) + _mass(attention) * self.projection.bias
        output = rearrange(
            output, "batch (row column) channel -> batch channel row column", row=grid[0]
        )
        return output[..., :rows, :columns]

    def _softmax(self, tokens: Float[Tensor, "batch token channel"], axis: str) -> SoftmaxAttention:
        query, key = self._split(self.query(tokens)), self._split(self.key(tokens))
        return SoftmaxAttention(query, key, causal=False, query_axis=axis, key_axis=axis)

    def _split(
        self, tokens: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch head token dim"]:
        return rearrange(tokens, "batch token (head dim) -> batch head token dim", head=self.heads)


def _mass(attention: AttentionOperator) -> Float[Tensor, "batch token 1"] | float:
    if not isinstance(attention, GroupedAttention):
        return 1.0
    return rearrange(attention.read.row_mass(), "batch 1 token -> batch token 1")
