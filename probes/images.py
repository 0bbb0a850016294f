"""Where a model's image tokens stand, and the patches of its vision towers."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor, nn

from attnscope.probes.axis_sequence import raster
from attnscope.traces import Segment, TokenSequence

__all__ = ["image_segments", "patch_sequence"]


def image_segments(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[Segment]:
    """Return the runs of image placeholder tokens in the text, with their grids where known."""
    config = getattr(model, "config", None)
    token = getattr(config, "image_token_id", None)
    token = getattr(config, "image_token_index", None) if token is None else token
    if token is None or "input_ids" not in tensors:
        return []
    is_image = (tensors["input_ids"][0] == token).tolist()
    starts = [i for i, here in enumerate(is_image) if here and (i == 0 or not is_image[i - 1])]
    runs = []
    for number, start in enumerate(starts):
        stop = next((i for i in range(start, len(is_image)) if not is_image[i]), len(is_image))
        grid = _grid_of_run(config, tensors, number, stop - start)
        runs.append(Segment(name="image", start=start, stop=stop, grid=grid))
    return runs


def _grid_of_run(
    config: Any, tensors: Mapping[str, Tensor], number: int, length: int
) -> tuple[int, int] | None:
    sizes = tensors.get("image_grid_thw")
    if sizes is not None and number < len(sizes):
        merge = getattr(getattr(config, "vision_config", None), "spatial_merge_size", 1)
        frames, rows, columns = (int(size) for size in sizes[number])
        grid = (frames * rows // merge, columns // merge)
        return grid if grid[0] * grid[1] == length else None
    return _square(length)


def patch_sequence(
    name: str, length: int, config: Any, tensors: Mapping[str, Tensor]
) -> TokenSequence:
    """Return a vision tower's sequence: class and register tokens first, then patches."""
    grid = _patch_grid(length, config, tensors.get("pixel_values"))
    if grid is None:
        return TokenSequence(name=name, tokens=tuple(str(i) for i in range(length)), axis="patch")
    return raster(name, length, grid)


def _patch_grid(length: int, config: Any, pixels: Tensor | None) -> tuple[int, int] | None:
    patch = getattr(getattr(config, "vision_config", config), "patch_size", None)
    if isinstance(patch, int) and pixels is not None and pixels.ndim >= 4:
        rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        if 0 <= length - rows * columns <= 16:
            return rows, columns
    return _square(length) or _square(length - 1)


def _square(length: int) -> tuple[int, int] | None:
    side = isqrt(max(length, 0))
    return (side, side) if side and side * side == length else None
