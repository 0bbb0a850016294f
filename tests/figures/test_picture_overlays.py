from typing import Any

import pytest
import torch
from PIL import Image

from attnscope.figures import FigureError, picture_overlay

VALUES = torch.tensor([[0.1, 0.4], [0.0, float("nan")], [0.2, 0.3]])


def test_patches_cover_the_whole_picture_on_both_libraries():
    picture = Image.new("RGB", (40, 60), "#ff0000")
    shown = picture_overlay(VALUES, picture, label="share", title="t", caption="c")
    figure: Any = shown.plotly()
    (image,) = figure.layout.images
    assert (image.x, image.y, image.sizex, image.sizey) == (-0.5, -0.5, 2, 3)
    assert figure.data[0].opacity < 1
    axes: Any = shown.matplotlib().axes[0]
    assert [list(each.get_extent()) for each in axes.images] == [[-0.5, 1.5, 2.5, -0.5]] * 2
    assert axes.images[0].get_array().ndim == 2


def test_patches_alone_are_drawn_in_full_color():
    shown = picture_overlay(VALUES, label="share")
    figure: Any = shown.plotly()
    assert not figure.layout.images
    assert figure.data[0].opacity == 1
    assert shown.scale.high == pytest.approx(0.4)


def test_a_picture_without_patches_is_refused():
    with pytest.raises(FigureError, match="got a grid of"):
        picture_overlay(torch.empty(0, 3), label="share")
