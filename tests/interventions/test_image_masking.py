"""Masks of pictures against scipy's blur and counts made by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.interventions import (
    ImageMatch,
    InterventionError,
    kept_pixels,
    mask_image,
    smooth_relevance,
)


def match(similarity=1.0, side=20):
    return ImageMatch(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), similarity, side)


def picture(width=40, height=30):
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_blur_is_scipy_s():
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy comes with the extra `subjects`")
    relevance = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    size = (50, 75)
    scaled = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    resized = torch.nn.functional.interpolate(scaled[None, None], size, mode="bicubic")[0, 0]
    blurred = ndimage.gaussian_filter(resized.double().numpy(), 0.02 * 75)
    expected = torch.from_numpy((blurred - blurred.min()) / (blurred.max() - blurred.min()))
    found = smooth_relevance(relevance, size)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_a_border_is_mirrored_more_than_once_where_the_picture_is_narrow():
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy comes with the extra `subjects`")
    resized = torch.nn.functional.interpolate(
        torch.tensor([[[[0.0, 1.0]]]]), (3, 200), mode="bicubic"
    )[0, 0]
    blurred = ndimage.gaussian_filter(resized.double().numpy(), 4.0)
    expected = torch.from_numpy((blurred - blurred.min()) / (blurred.max() - blurred.min()))
    found = smooth_relevance(torch.tensor([[0.0, 1.0]]), (3, 200))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_a_map_without_contrast_keeps_everything():
    smooth = smooth_relevance(torch.ones(3, 3), (9, 9))
    assert bool((smooth == 0).all())
    assert bool(kept_pixels(smooth, 0.4).all())


@given(st.floats(-1, 1), st.integers(0, 1000))
def test_the_share_that_stays_is_1_minus_half_the_similarity(similarity, seed):
    relevance = torch.randperm(400, generator=torch.Generator().manual_seed(seed)) / 400
    kept = kept_pixels(relevance.reshape(20, 20), similarity).flatten()
    ratio = min(1 - similarity / 2, 1 - 1e-5)
    assert int(kept.sum()) == int(400 * ratio) + 1
    assert bool((relevance[kept].min() > relevance[~kept]).all())


def test_counts_of_the_published_size():
    relevance = torch.arange(384.0 * 384).reshape(384, 384)
    assert int(kept_pixels(relevance, 0.4).sum()) == int(384 * 384 * 0.8) + 1
    assert int(kept_pixels(relevance, 0.0).sum()) == 384 * 384 - 1
    tied = relevance.clamp_min(5)
    assert bool(kept_pixels(tied, 0.0).all())


def test_what_matters_keeps_its_colour_and_the_rest_is_black():
    import numpy as np

    image = picture()
    masked = np.asarray(mask_image(image, match(), keep_aspect=True))
    kept = kept_pixels(smooth_relevance(match().relevance, (30, 40)), 1.0).numpy()
    assert masked.shape == (30, 40, 3)
    assert (masked[kept] == np.asarray(image)[kept]).all()
    assert (masked[~kept] == 0).all()
    assert 0.4 < kept.mean() < 0.6
    assert kept[:, -1].all()


def test_by_default_the_picture_becomes_the_matcher_s_square():
    assert mask_image(picture(), match(side=24)).size == (24, 24)
    assert mask_image(picture().convert("L"), match(side=24)).mode == "RGB"


def test_only_pictures_of_pillow_are_masked():
    with pytest.raises(InterventionError, match="PIL"):
        mask_image(torch.zeros(3, 4, 4), match())
