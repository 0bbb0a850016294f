"""VOLO's outlook attention: maps of small windows that overlap and are added up where they do."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import unfold

from attnscope.attention import IndexedAttention

__all__ = ["outlook_operator"]


def outlook_operator(
    pattern: Float[Tensor, "batch head window slot slot"],
    grid: tuple[int, int],
    window: dict[str, int],
) -> IndexedAttention:
    """Return the operator that overlapping windows make together.

    Each patch stands in several windows and sums what it reads in all of them, so a row's mass is
    the number of these windows, less what they spend on slots outside the picture.

    Args:
        pattern: The map of each window, after softmax.
        grid: Rows and columns of patches.
        window: How windows are cut: `kernel_size`, `padding` and `stride`.

    Reference: Yuan et al. 2021, arXiv:2106.13112, section 3.1.
    """
    places = _places(grid, window)
    members = _members(places, grid[0] * grid[1])
    rows = rearrange(pattern, "batch head window row slot -> batch head (window row) slot")
    index = places.repeat_interleave(places.shape[1], dim=0)[members]  # patch, member, slot
    index = index.masked_fill((members < 0).unsqueeze(-1), -1).flatten(1).to(pattern.device)
    weights = rows[:, :, members.clamp_min(0).to(pattern.device)].flatten(3)
    weights = weights.masked_fill(index < 0, 0)
    axes = {"query_axis": "patch", "key_axis": "patch"}
    return IndexedAttention(weights, index, len(members), offset=0, **axes)


def _places(grid: tuple[int, int], window: dict[str, int]) -> Int[Tensor, "window slot"]:
    """Return the patch in each slot of each window, -1 outside the picture."""
    numbers = torch.arange(1, grid[0] * grid[1] + 1, dtype=torch.float64).reshape(1, 1, *grid)
    return unfold(numbers, **window)[0].T.long() - 1


def _members(places: Int[Tensor, "window slot"], patches: int) -> Int[Tensor, "patch member"]:
    """Return the rows of all windows that belong to each patch, -1 where it has no more."""
    order = places.flatten().argsort(stable=True)
    owners = places.flatten()[order]
    order, owners = order[owners >= 0], owners[owners >= 0]
    counts = torch.bincount(owners, minlength=patches)
    starts = counts.cumsum(0) - counts
    members = torch.full((patches, int(counts.max())), -1)
    members[owners, torch.arange(len(owners)) - starts[owners]] = order
    return members
