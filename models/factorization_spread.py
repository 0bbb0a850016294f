"""Where keys stand for several tokens: pooled patches, and slots of windows laid over the map.

A mechanism that pools before it attends has a map from tokens to pooled keys. These functions
return the map from tokens to tokens: each key's weight is spread evenly over what it stands for.
"""

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from attnscope.attention import AttentionOperator, GroupedAttention, IndexedAttention

__all__ = ["spread_over_patches", "spread_over_windows", "window_slots"]


def spread_over_patches(
    attention: AttentionOperator, grid: tuple[int, int], size: int
) -> GroupedAttention:
    """Return tokens' attention to tokens where each key is a pooled patch of `size` x `size`.

    Rows that a last, incomplete patch would need belong to no key, as in a convolution of stride
    `size` without padding.

    Args:
        attention: The operator from tokens to pooled patches, in raster order.
        grid: Rows and columns of the tokens.
        size: Side of a patch.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> pooled = DenseAttention(torch.tensor([[[0.2, 0.8]]]))  # one query, two patches
        >>> spread_over_patches(pooled, (2, 4), 2).dense().flatten().tolist()  # doctest: +ELLIPSIS
        [0.05..., 0.05..., 0.2..., 0.2..., 0.05..., 0.05..., 0.2..., 0.2...]
    """
    rows, columns = (length // size * size for length in grid)
    index = rearrange(
        torch.arange(grid[0] * grid[1]).reshape(grid)[:rows, :columns],
        "(row down) (column right) -> (row column) (down right)",
        down=size,
        right=size,
    )
    return _spread_evenly(attention, index, grid)


def spread_over_windows(
    attention: AttentionOperator, grid: tuple[int, int], dilation: int, side: int = 7
) -> GroupedAttention:
    """Return tokens' attention to tokens where each key is one slot of all windows at once.

    The weight of a slot is shared evenly by the tokens at its offset in every window; tokens that
    a window met in the reflected border are themselves. Exact where the slots were averaged over
    windows channel by channel; where channels were mixed with windows (`released_pool` of more than
    one window) it is an approximation, since no token keeps its channels apart.

    Args:
        attention: The operator from tokens to the slots of a window, in raster order.
        grid: Rows and columns of the tokens.
        dilation: Distance between neighboring slots.
        side: Slots along a side of the window.
    """
    return _spread_evenly(attention, window_slots(grid, dilation, side), grid)


def window_slots(grid: tuple[int, int], dilation: int, side: int = 7) -> Int[Tensor, "slot window"]:
    """Return the token in each slot of each window, over a map that ends in its mirror image.

    Windows of `side` slots, `dilation` apart, span `(side - 1) dilation + 1` tokens and stand side
    by side.

    Raises:
        ValueError: The map is too small to be reflected as far as its last window reaches.

    Example:
        >>> window_slots((1, 3), 1, side=1).tolist()  # one slot: each token is a window
        [[0, 1, 2]]
        >>> window_slots((4, 4), 2, side=2)[0].tolist()  # windows of 3; token 3 starts the second
        [0, 3, 12, 15]
    """
    down, right = (_axis_slots(length, dilation, side) for length in grid)
    index = down[:, None, :, None] * grid[1] + right[None, :, None, :]
    return rearrange(index, "row column down right -> (row column) (down right)")


def _axis_slots(length: int, dilation: int, side: int) -> Int[Tensor, "slot window"]:
    span = (side - 1) * dilation + 1
    missing = -length % span
    if missing >= length:
        raise ValueError(
            f"windows of {span} tokens need {missing} more than the {length} of this map; a "
            f"reflection gives {length - 1} at most: enlarge the image or lower the reduction"
        )
    starts = torch.arange(0, length, span)
    places = starts + dilation * torch.arange(side)[:, None]
    return torch.where(places < length, places, 2 * (length - 1) - places)


def _spread_evenly(
    attention: AttentionOperator, index: Int[Tensor, "group slot"], grid: tuple[int, int]
) -> GroupedAttention:
    index = index.to(attention.device)
    weights = torch.full(index.shape, 1 / index.shape[-1], dtype=attention.dtype)
    weights = weights.to(attention.device).expand(*attention.shape[:-3], 1, *index.shape)
    spread = IndexedAttention(
        weights,
        index,
        grid[0] * grid[1],
        query_axis=attention.key_axis,
        key_axis=attention.query_axis,
    )
    return GroupedAttention(attention, spread)
