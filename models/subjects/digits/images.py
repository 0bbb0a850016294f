"""The pictures: real handwritten digits, enlarged, somewhere on a cluttered canvas.

The digits are those that scikit-learn bundles (UCI's optical recognition set, 1,797 pictures of
8 x 8 pixels from 43 writers). One of them stands, enlarged, at a random place of a larger canvas;
around it lie torn pieces of other digits and noise. A model has to find the digit before it can
read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["CANVAS", "DIGIT", "Pictures", "epochs", "handwriting", "heldout", "place"]

CANVAS = 32
"""Pixels on a side of the canvas."""

DIGIT = 16
"""Pixels on a side of the enlarged digit."""

HELDOUT = 360
"""Handwritten digits that no training picture shows, whole or in pieces."""

_PIECE = 6
_PIECES = 3
_NOISE = 0.1


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures with what they show.

    Attributes:
        pixels: `(picture, 1, row, column)`, from 0 (paper) to about 1 (ink), with noise.
        labels: The digit, 0 to 9.
        corners: Row and column of the digit's upper left pixel.
    """

    pixels: Float[Tensor, "picture 1 row column"]
    labels: Int[Tensor, " picture"]
    corners: Int[Tensor, "picture 2"]


@cache
def handwriting() -> tuple[Float[Tensor, "digit 8 8"], Int[Tensor, " digit"]]:
    """Return scikit-learn's handwritten digits, ink from 0 to 1, and what they are."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return torch.tensor(digits.images / 16.0, dtype=torch.float32), torch.tensor(digits.target)


def heldout(seed: int = 10_000) -> Pictures:
    """Return one picture of each held-out digit."""
    ink, labels = _split(held_out=True)
    return place(ink, labels, torch.Generator().manual_seed(seed))


def epochs(batch: int, seed: int) -> Iterator[Pictures]:
    """Yield batches without end; every pass shows each training digit once, in a new place."""
    ink, labels = _split(held_out=False)
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order.split(batch):
            if len(chosen) == batch:
                yield place(ink[chosen], labels[chosen], generator)


def place(
    ink: Float[Tensor, "picture 8 8"], labels: Int[Tensor, " picture"], generator: torch.Generator
) -> Pictures:
    """Return each digit enlarged on a canvas of its own, among pieces of the other ones given."""
    count = len(ink)
    corners = torch.randint(0, CANVAS - DIGIT + 1, (count, 2), generator=generator)
    canvas = _clutter(ink, generator)
    large = interpolate(ink[:, None], size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
    for picture, (row, column) in enumerate(corners.tolist()):
        canvas[picture, 0, row : row + DIGIT, column : column + DIGIT] = large[picture, 0]
    noise = torch.randn(canvas.shape, generator=generator) * _NOISE
    return Pictures(canvas + noise, labels, corners)


def _clutter(
    ink: Float[Tensor, "picture 8 8"], generator: torch.Generator
) -> Float[Tensor, "picture 1 row column"]:
    """Return canvases with torn pieces of enlarged digits; the digit itself will lie on top."""
    count = len(ink)
    canvas = torch.zeros(count, 1, CANVAS, CANVAS)
    large = interpolate(ink[:, None], size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
    sources = torch.randint(0, count, (count, _PIECES), generator=generator)
    cuts = torch.randint(0, DIGIT - _PIECE + 1, (count, _PIECES, 2), generator=generator)
    spots = torch.randint(0, CANVAS - _PIECE + 1, (count, _PIECES, 2), generator=generator)
    for picture in range(count):
        for source, cut, spot in zip(
            sources[picture].tolist(), cuts[picture].tolist(), spots[picture].tolist(), strict=True
        ):
            piece = large[source, 0, cut[0] : cut[0] + _PIECE, cut[1] : cut[1] + _PIECE]
            canvas[picture, 0, spot[0] : spot[0] + _PIECE, spot[1] : spot[1] + _PIECE] = piece
    return canvas


def _split(*, held_out: bool) -> tuple[Tensor, Tensor]:
    ink, labels = handwriting()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    chosen = order[:HELDOUT] if held_out else order[HELDOUT:]
    return ink[chosen], labels[chosen]
