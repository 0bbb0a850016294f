"""Locality on images: the distance of attention between patches, and the mass near each patch."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import mean_rows, precise, row_shares

__all__ = ["nonlocality", "patch_distance", "patch_window_mass", "relative_nonlocality"]

_TILE = 2**22
"""Entries of the tiles that a pass over the patches holds at once."""


def patch_distance(
    attention: AttentionOperator,
    grid: tuple[int, int],
    patches: Sequence[int] | None = None,
    *,
    patch_size: float = 1.0,
) -> Float[Tensor, "*batch head"]:
    """Return the mean attention distance of each head on an image.

    The mean over patch queries of ``sum_j A_ij ||p_i - p_j||``, with p the place of a patch on the
    grid times the patch size. Class and register tokens are left out as queries and as keys, and
    rows are not rescaled for it, so attention to them counts as distance 0. 0 for a head in which
    each patch reads itself; a uniform head over 2 x 2 patches reads 0.8536 patches.

    One pass over tiles of patch rows, with O(T block) memory.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        grid: Rows and columns of patches.
        patches: Position of each patch, row by row; by default all positions are patches.
        patch_size: Side of a patch, in the unit of the result.

    Raises:
        MetricError: The patches do not fill the grid, or the attention is not a distribution.

    Reference: Dosovitskiy et al. 2020, arXiv:2010.11929, mean attention distance. That rows are not
        rescaled follows the field's public implementation, the paper does not say.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> uniform = DenseAttention(torch.full((1, 4, 4), 0.25), offset=None)
        >>> round(float(patch_distance(uniform, (2, 2))), 4)  # (0 + 1 + 1 + sqrt 2) / 4
        0.8536
    """
    distance = _by_patch(attention, grid, patches, lambda tile, gap: (tile * gap).sum(-1))
    return patch_size * mean_rows(distance, ~distance.isnan())


def nonlocality(
    attention: AttentionOperator, grid: tuple[int, int], patches: Sequence[int] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the nonlocality of a layer: the mean over heads of `patch_distance`, in patches.

    ``D_loc = 1/L sum_ij A_ij ||delta_ij||``, averaged over heads. 0 when every head reads each
    patch at its own place.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        grid: Rows and columns of patches.
        patches: Position of each patch, row by row; by default all positions are patches.

    Raises:
        MetricError: The patches do not fill the grid, or the attention is not a distribution.

    Reference: d'Ascoli et al. 2021, arXiv:2103.10697, equation 8. There the map is averaged over a
        batch of images first.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> maps = torch.stack([torch.full((4, 4), 0.25), torch.eye(4)])  # uniform, identity
        >>> round(float(nonlocality(DenseAttention(maps, offset=None), (2, 2))), 4)  # 0.8536 / 2
        0.4268
    """
    return patch_distance(attention, grid, patches).mean(-1)


def relative_nonlocality(
    attention: AttentionOperator, grid: tuple[int, int], patches: Sequence[int] | None = None
) -> Float[Tensor, "*batch head"]:
    """Return the nonlocality of each head as a share of what uniform attention has on the grid.

    ``mean_i sum_j A_ij ||p_i - p_j||``, rows rescaled to the patches alone, divided by the mean
    distance of two patches: 1 for a head that reads all patches alike, 0 for one in which each
    patch reads itself, so that layers with other grids, class and register tokens compare. More
    than 1 for heads that look past their neighborhood. NaN on a grid of one patch, and where no
    patch reads a patch.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        grid: Rows and columns of patches.
        patches: Position of each patch, row by row; by default all positions are patches.

    Raises:
        MetricError: The patches do not fill the grid, or the attention is not a distribution.

    Reference: d'Ascoli et al. 2021, arXiv:2103.10697, equation 8, for a model without class token;
        the division is ours.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> maps = torch.stack([torch.full((4, 4), 0.25), torch.eye(4)])  # uniform, identity
        >>> relative_nonlocality(DenseAttention(maps, offset=None), (2, 2)).tolist()
        [1.0, 0.0]
    """
    share = _by_patch(
        attention, grid, patches, lambda tile, gap: (tile * gap).sum(-1) / tile.sum(-1)
    )
    return mean_rows(share, ~share.isnan()) / _mean_gap(grid)


def patch_window_mass(
    attention: AttentionOperator,
    grid: tuple[int, int],
    patches: Sequence[int] | None = None,
    *,
    radius: float = 1.0,
) -> Float[Tensor, "*batch head patch"]:
    """Return the attention that each patch keeps within a disk around itself.

    ``sum over ||p_i - p_j|| <= radius of A_ij``, in patches: 1 when nothing else is read; class and
    register tokens stand outside. NaN for a query that sees no key.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        grid: Rows and columns of patches.
        patches: Position of each patch, row by row; by default all positions are patches.
        radius: Furthest distance inside the disk; 1 holds the four direct neighbors.

    Raises:
        MetricError: The patches do not fill the grid, or the attention is not a distribution.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> uniform = DenseAttention(torch.full((1, 4, 4), 0.25), offset=None)
        >>> patch_window_mass(uniform, (2, 2)).tolist()  # all but the opposite corner
        [[0.75, 0.75, 0.75, 0.75]]
    """
    return _by_patch(
        attention, grid, patches, lambda tile, gap: torch.where(gap <= radius, tile, 0).sum(-1)
    )


def _by_patch(
    attention: AttentionOperator,
    grid: tuple[int, int],
    patches: Sequence[int] | None,
    reduce: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "*batch head patch"]:
    """Return a functional of attention and distance for each patch, tile by tile."""
    mass = row_shares(attention, "distance between patches")
    places = torch.cartesian_prod(*(torch.arange(size, dtype=torch.float32) for size in grid))
    keys = torch.arange(attention.keys) if patches is None else torch.as_tensor(list(patches))
    if len(keys) != len(places):
        raise MetricError(
            f"{len(keys)} patches do not fill a grid of {grid[0]} x {grid[1]}; name the positions "
            "of the patches, without class and register tokens"
        )
    rows = keys - (attention.offset or 0)
    places = places.to(attention.device)
    step = max(16, _TILE // max(1, attention.shape[:-2].numel() * len(keys)))
    reduced = [
        reduce(precise(attention.tile(rows[start : start + step], keys)), gap)
        for start, gap in _gaps(places, step)
    ]
    inside = mass[..., rows.to(mass.device)]
    return torch.where(inside.isnan(), torch.nan, torch.cat(reduced, dim=-1))


def _mean_gap(grid: tuple[int, int]) -> float:
    """Return the mean distance of two patches of a grid, NaN where there is one patch alone."""
    steps = [torch.arange(size, dtype=torch.float64) for size in grid]
    # A distance of d > 0 steps lies between 2 (size - d) ordered pairs of one row.
    pairs = [(size - step) * (1 + (step > 0)) for size, step in zip(grid, steps, strict=True)]
    distance = torch.hypot(steps[0][:, None], steps[1])
    total = float((pairs[0][:, None] * pairs[1] * distance).sum())
    return total / (grid[0] * grid[1]) ** 2 or torch.nan


def _gaps(
    places: Float[Tensor, "patch 2"], step: int
) -> Iterator[tuple[int, Float[Tensor, "some_patch patch"]]]:
    """Yield the distances of some patches to all, with the number of the first."""
    for start in range(0, len(places), step):
        yield start, torch.cdist(places[start : start + step], places, compute_mode=_EXACT)


_EXACT = "donot_use_mm_for_euclid_dist"
