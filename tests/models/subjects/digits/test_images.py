"""The pictures: whole digits where they are said to be, and nothing held out in training."""

from itertools import islice

import torch
from torch.nn.functional import interpolate

from attnscope.models.subjects.digits.images import (
    CANVAS,
    DIGIT,
    HELDOUT,
    epochs,
    handwriting,
    heldout,
    place,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_handwriting_is_that_of_scikit_learn() -> None:
    ink, labels = handwriting()
    assert ink.shape == (1797, 8, 8)
    assert (ink.min(), ink.max()) == (0, 1)
    assert labels.bincount().min() >= 170


def test_the_digit_lies_whole_at_its_corner() -> None:
    ink, labels = handwriting()
    pictures = place(ink[:20], labels[:20], generator())
    large = interpolate(ink[:20, None], size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
    assert pictures.pixels.shape == (20, 1, CANVAS, CANVAS)
    for picture, (row, column) in enumerate(pictures.corners.tolist()):
        cut = pictures.pixels[picture, :, row : row + DIGIT, column : column + DIGIT]
        assert (cut - large[picture]).abs().max() < 0.6  # six standard deviations of the noise


def test_places_are_spread_over_the_canvas_and_clutter_lies_around() -> None:
    pictures = heldout()
    assert len(pictures.labels) == HELDOUT
    assert pictures.corners.amin(0).tolist() == [0, 0]
    assert pictures.corners.amax(0).tolist() == [CANVAS - DIGIT] * 2
    outside = pictures.pixels.clone()
    for picture, (row, column) in enumerate(pictures.corners.tolist()):
        outside[picture, :, row : row + DIGIT, column : column + DIGIT] = 0
    assert (outside.amax((1, 2, 3)) > 0.6).float().mean() > 0.5


def test_a_pass_shows_each_training_digit_once_and_no_held_out_one() -> None:
    batches = list(islice(epochs(64, seed=3), 22))
    labels = torch.cat([batch.labels for batch in batches])
    whole, held = handwriting()[1], heldout().labels
    left = whole.bincount() - held.bincount() - labels.bincount()
    assert (left >= 0).all()
    assert left.sum() == 1797 - HELDOUT - 22 * 64


def test_the_same_seed_gives_the_same_pictures() -> None:
    one, other = (next(epochs(8, seed=5)) for _ in range(2))
    assert torch.equal(one.pixels, other.pixels)
    assert not torch.equal(one.pixels, next(epochs(8, seed=6)).pixels)
