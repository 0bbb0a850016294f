"""Pictures of which some patches have given way to the mean color."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.traces import Segment, TokenSequence

__all__ = ["blended_pictures", "picture_runs"]

_COLORS = 3


def picture_runs(sequence: TokenSequence, inputs: Mapping[str, Tensor]) -> list[Segment]:
    """Return the pictures of a sequence whose pixels are known by position; none if not all are.

    Either each is an entry of `pixel_values` that its grid divides into equal patches, or
    `pixel_values` lists patches, several in a row for each position (Qwen2-VL).
    """
    runs = [run for run in sequence.segments if run.name == "image"]
    pixels = inputs.get("pixel_values")
    if not runs or pixels is None:
        return []
    if pixels.ndim == 2:
        count = sum(len(run.positions) for run in runs)
        return runs if not len(pixels) % count and not pixels.shape[1] % _COLORS else []
    if pixels.ndim != 4 or len(pixels) != len(runs):
        return []
    height, width = pixels.shape[-2:]
    fits = [
        run.grid is not None and not height % run.grid[0] and not width % run.grid[1]
        for run in runs
    ]
    return runs if all(fits) else []


def blended_pictures(
    pixels: Float[Tensor, "picture ..."],
    runs: Sequence[Segment],
    shares: Sequence[Float[Tensor, " position"]],
) -> Float[Tensor, "picture ..."]:
    """Return pixels, those of each position between themselves (1) and the mean color (0).

    Args:
        pixels: `pixel_values`, as `picture_runs` takes them.
        runs: The pictures, in order.
        shares: How far each position of each picture is there.

    Example:
        >>> picture = torch.tensor([[[[0.0, 4.0], [2.0, 6.0]]]])
        >>> run = Segment(name="image", start=0, stop=4, grid=(2, 2))
        >>> blended_pictures(picture, [run], [torch.tensor([1.0, 0.0, 0.5, 1.0])]).tolist()
        [[[[0.0, 3.0], [2.5, 6.0]]]]
    """
    if pixels.ndim == 2:
        per_position = len(pixels) // sum(map(len, shares))
        pieces = pixels.split([len(share) * per_position for share in shares])
        pairs = zip(pieces, shares, strict=True)
        return torch.cat([_blended_rows(piece, share, per_position) for piece, share in pairs])
    triples = zip(pixels, runs, shares, strict=True)
    return torch.stack([_blended_grid(picture, run, share) for picture, run, share in triples])


def _blended_grid(picture: Tensor, run: Segment, share: Tensor) -> Tensor:
    rows, columns = run.grid or (1, 1)
    height, width = picture.shape[-2] // rows, picture.shape[-1] // columns
    spread = share.to(picture).reshape(rows, columns)
    spread = spread.repeat_interleave(height, -2).repeat_interleave(width, -1)
    mean = picture.mean((-2, -1), keepdim=True).expand_as(picture)
    return torch.lerp(mean, picture, spread.expand_as(picture))


def _blended_rows(rows: Tensor, share: Tensor, per_position: int) -> Tensor:
    """Return patches that are listed, each as `(color, ...)` laid flat."""
    colors = rows.reshape(len(rows), _COLORS, -1).mean((0, 2), keepdim=True)
    mean = colors.expand(len(rows), _COLORS, rows.shape[1] // _COLORS).reshape(rows.shape)
    spread = share.to(rows).repeat_interleave(per_position)[:, None]
    return torch.lerp(mean, rows, spread.expand_as(rows))
