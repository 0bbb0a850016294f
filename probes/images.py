"""Where a model's image tokens stand, and the patches of its vision towers."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from itertools import groupby
from math import isqrt
from typing import Any

from torch import Tensor, nn

from attnscope.probes.axis_sequence import raster
from attnscope.probes.errors import CaptureError
from attnscope.traces import Segment, TokenSequence

__all__ = ["image_segments", "patch_sequence", "with_pictures"]

Grid = tuple[int, int]
_RESAMPLED = ("qformer_config", "perceiver_config")


def image_segments(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[Segment]:
    """Return the pictures in the text, tile by tile, with the grid of each where it is known.

    A picture is where its placeholder tokens stand. Tiles that follow each other are segments of
    their own (LLaVA-NeXT's overview before its details, InternVL's and LLaVA's several pictures);
    tokens that end a row of patches count as a last column. Tokens that a resampler made have no
    grid, and neither has a run that the model's own sizes do not explain.
    """
    config = getattr(model, "config", None)
    token = getattr(config, "image_token_id", None)
    token = getattr(config, "image_token_index", None) if token is None else token
    if token is None or "input_ids" not in tensors:
        return []
    is_image = (tensors["input_ids"][0] == token).tolist()
    if _ends_rows(config):
        # Every row of placeholders is followed by a token that ends the row, or the picture.
        is_image = [a or b for a, b in zip(is_image, [False, *is_image], strict=False)]
    grids = iter(_grids(config, tensors, sum(is_image)))
    runs = _runs(is_image)
    return [piece for start, stop in runs for piece in _cut(start, stop, grids)]


def with_pictures(processor: Any, text: str, images: Sequence[Any]) -> dict[str, Tensor]:
    """Return what a processor makes of a text and its pictures.

    Raises:
        CaptureError: The processor takes no pictures, or not these.
    """
    kinds = ", ".join(type(image).__name__ for image in images) or "none"
    if images and "images" not in signature(processor.__call__).parameters:
        raise CaptureError(
            f"pictures were given (of type {kinds}), and {type(processor).__name__} takes text "
            "alone; give Subject() the processor of a vision-language model"
        )
    try:
        made = processor(text=text, images=list(images) or None, return_tensors="pt")
    except CaptureError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError, LookupError) as error:
        raise CaptureError(
            f"{type(processor).__name__} takes neither this text nor these pictures, or not "
            f"together: {text!r}, pictures of type {kinds}: {error}"
        ) from error
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def _runs(is_image: Sequence[bool]) -> Iterator[tuple[int, int]]:
    start = 0
    for here, run in groupby(is_image):
        stop = start + sum(1 for _ in run)
        if here:
            yield start, stop
        start = stop


def _cut(start: int, stop: int, grids: Iterator[Grid]) -> list[Segment]:
    """Return a run of placeholders cut into the next grids, whole and without one if none fit."""
    pieces, at = [], start
    while at < stop:
        rows, columns = next(grids, (0, 0))
        if not 0 < rows * columns <= stop - at:
            list(grids)  # the sizes do not explain this run, so that later ones are no safer
            return [Segment(name="image", start=start, stop=stop)]
        size = rows * columns
        pieces.append(Segment(name="image", start=at, stop=at + size, grid=(rows, columns)))
        at += size
    return pieces


def _grids(config: Any, tensors: Mapping[str, Tensor], tokens: int) -> list[Grid]:
    """Return the grid of each tile, in order, as the model lays its tokens out."""
    if any(getattr(config, name, None) is not None for name in _RESAMPLED):
        return []
    if "image_grid_thw" in tensors:
        return _merged_grids(config, tensors["image_grid_thw"])
    if "image_sizes" in tensors:
        sizes = [(int(height), int(width)) for height, width in tensors["image_sizes"]]
        if _ends_rows(config):
            return [_grid_with_row_ends(config, size) for size in sizes]
        if getattr(config, "image_grid_pinpoints", None):
            return [grid for size in sizes for grid in _overview_and_details(config, size)]
    return _equal_squares(tensors.get("pixel_values"), tokens)


def _merged_grids(config: Any, sizes: Tensor) -> list[Grid]:
    """Return the grids of Qwen's pictures, whose patches are merged; frames stand below frames."""
    merge = getattr(getattr(config, "vision_config", None), "spatial_merge_size", 1)
    return [
        (int(frames) * (int(rows) // merge), int(columns) // merge)
        for frames, rows, columns in sizes
    ]


def _ends_rows(config: Any) -> bool:
    return getattr(getattr(config, "vision_config", None), "model_type", "") == "pixtral"


def _grid_with_row_ends(config: Any, size: Grid) -> Grid:
    """Return the grid of Pixtral's picture of any size; its last column ends the rows."""
    patch = config.vision_config.patch_size * getattr(config, "spatial_merge_size", 1)
    return size[0] // patch, size[1] // patch + 1


def _overview_and_details(config: Any, size: Grid) -> list[Grid]:
    """Return the grids of LLaVA-NeXT's picture: in small, then in tiles that are put together.

    Rows or columns that only pad the tiles are cut off, and every row ends with a newline token.
    """
    from transformers.image_processing_utils import select_best_resolution

    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    best = select_best_resolution(size, config.image_grid_pinpoints)
    rows, columns = (length // vision.image_size * side for length in best)
    if size[1] * rows > size[0] * columns:
        rows -= (rows - int(round(size[0] * columns / size[1], 7))) // 2 * 2
    else:
        columns -= (columns - int(round(size[1] * rows / size[0], 7))) // 2 * 2
    return [(side, side), (rows, columns + 1)]


def _equal_squares(pixels: Tensor | None, tokens: int) -> list[Grid]:
    """Return the grids of tiles that are all one square: as many as pictures went in."""
    tiles = pixels.shape[:-3].numel() if pixels is not None and pixels.ndim >= 4 else 1
    side = isqrt(tokens // tiles)
    return [(side, side)] * tiles if side * side * tiles == tokens else []


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
