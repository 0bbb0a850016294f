"""Modified shifted-window attention (HiDiffusion MSW-MSA): a latent map in four rolled windows.

    window = (ceil(H / 2), ceil(W / 2)), so that there are always 2 x 2 of them
    shift = k (window // 4), one k of 0, 1, 2, 3 drawn for each call of a block
    roll the map by -shift, attend within each window without a mask, roll back

Opposite borders attend to each other where the roll has joined them. Cost O(N^2 d / 4) for N
positions, against O(N^2 d); no parameters, no training. A map of odd size is first resized.

Reference: Zhang et al. 2023, arXiv:2311.17528, as in the released code. The map of odd size is made
even before the projections and brought back after them, which is our reading of where.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from attnscope.attention import Mixing, SoftmaxAttention, WindowedAttention

__all__ = [
    "ShiftedWindowProcessor",
    "random_draw",
    "shifted_window_attention",
    "shifted_windows",
    "window_shift",
]

_DRAWS = 4


def window_shift(grid: tuple[int, int], draw: int) -> tuple[int, int]:
    """Return by how many rows and columns a map is rolled for the draw `k`.

    Raises:
        ValueError: The draw is none of 0, 1, 2, 3.

    Example:
        >>> [window_shift((8, 32), k) for k in range(4)]
        [(0, 0), (1, 4), (2, 8), (3, 12)]
    """
    if draw not in range(_DRAWS):
        raise ValueError(f"the draw is {draw}; it is one of 0, 1, 2, 3")
    rows, columns = (-(-length // 2) // 4 * draw for length in grid)
    return rows, columns


def shifted_windows(grid: tuple[int, int], shift: tuple[int, int]) -> Int[Tensor, "4 slot"]:
    """Return the positions in each of four windows of a map of even sides, rolled by `-shift`.

    Example:
        >>> shifted_windows((4, 4), (1, 1))[3].tolist()  # the corners meet
        [15, 12, 3, 0]
    """
    positions = torch.arange(grid[0] * grid[1]).reshape(grid)
    rolled = positions.roll((-shift[0], -shift[1]), (0, 1))
    return rearrange(
        rolled, "(down row) (right column) -> (down right) (row column)", down=2, right=2
    )


def shifted_window_attention(
    query: Float[Tensor, "batch head position dim"],
    key: Float[Tensor, "batch head position dim"],
    grid: tuple[int, int],
    shift: tuple[int, int],
    scale: float | None = None,
) -> WindowedAttention:
    """Return self-attention in four windows of a map of even sides.

    Example:
        >>> nothing = torch.zeros(1, 1, 64, 4)
        >>> A = shifted_window_attention(nothing, nothing, (8, 8), (2, 2))
        >>> A.rows([0]).reshape(8, 8).any(1).nonzero().flatten().tolist()
        [0, 1, 6, 7]
    """
    table = shifted_windows(grid, shift).to(query.device)
    windows = "batch head window slot dim -> batch window head slot dim"
    query_windows, key_windows = (rearrange(part[..., table, :], windows) for part in (query, key))
    return WindowedAttention(
        SoftmaxAttention(query_windows, key_windows, scale, causal=False),
        table,
        table,
        query.shape[-2],
        key.shape[-2],
        offset=0,
        query_axis="patch",
        key_axis="patch",
    )


def random_draw(generator: torch.Generator | None = None) -> Callable[[], int]:
    """Return a function that draws 0, 1, 2 or 3, each as likely as the others."""
    return lambda: int(torch.randint(_DRAWS, (), generator=generator))


class ShiftedWindowProcessor(nn.Module):
    """Runs a self-attention module of diffusers in shifted windows; takes its processor's place.

    Args:
        draw: Gives the draw of each call; `random_draw()` as published, a constant to repeat a run.

    Attributes:
        grid: Rows and columns of the map that comes next, set by who calls the transformer.
        shift: By how much the last map was rolled; None before the first.
    """

    def __init__(self, draw: Callable[[], int]) -> None:
        super().__init__()
        self.draw, self.mixing = draw, Mixing()
        self.grid: tuple[int, int] | None = None
        self.shift: tuple[int, int] | None = None

    def forward(
        self,
        attention: Any,
        hidden_states: Float[Tensor, "batch position channel"],
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Float[Tensor, "batch position channel"]:
        """Return what the module `attention` makes of the states, within windows.

        Raises:
            ValueError: This is cross-attention, it is masked, or nobody has told the grid.
        """
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError("shifted windows take self-attention without a mask")
        if self.grid is None:
            raise ValueError("the rows and columns of the map are not known; set `grid` first")
        grid = (self.grid[0] + self.grid[0] % 2, self.grid[1] + self.grid[1] % 2)
        states = _resized(hidden_states, self.grid, grid)
        query, key, values = (
            rearrange(
                projection(states),
                "batch position (head dim) -> batch head position dim",
                head=attention.heads,
            )
            for projection in (attention.to_q, attention.to_k, attention.to_v)
        )
        query = query if attention.norm_q is None else attention.norm_q(query)
        key = key if attention.norm_k is None else attention.norm_k(key)
        self.shift = window_shift(grid, self.draw())
        windows = shifted_window_attention(query, key, grid, self.shift, attention.scale)
        output = self.mixing(windows, values, grid=grid)
        output = rearrange(output, "batch head position dim -> batch position (head dim)")
        for layer in attention.to_out:
            output = layer(output)
        output = _resized(output, grid, self.grid)
        if attention.residual_connection:
            output = output + hidden_states
        return output / attention.rescale_output_factor


def _resized(
    states: Float[Tensor, "batch position channel"], grid: tuple[int, int], target: tuple[int, int]
) -> Float[Tensor, "batch some_position channel"]:
    """Return a map resized by a bicubic; itself where it has its size already."""
    if grid == target:
        return states
    if target[0] * target[1] > grid[0] * grid[1]:
        warnings.warn(
            f"a map of {grid[0]} x {grid[1]} cannot be halved and is resized to "
            f"{target[0]} x {target[1]}; latents of even size at this depth avoid it",
            stacklevel=3,
        )
    image = rearrange(states, "batch (row column) channel -> batch channel row column", row=grid[0])
    image = interpolate(image, size=target, mode="bicubic")
    return rearrange(image, "batch channel row column -> batch (row column) channel")
