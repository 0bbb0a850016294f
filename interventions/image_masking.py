"""`mask_image`: a picture of which only the pixels that matter to a text are left."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv1d, interpolate

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.image_matching import ImageMatch

__all__ = ["kept_pixels", "mask_image", "smooth_relevance"]

_LARGEST_RATIO = 1 - 1e-5
_WIDTHS = 4


def smooth_relevance(
    relevance: Float[Tensor, "row column"], size: tuple[int, int]
) -> Float[Tensor, "height width"]:
    """Return a relevance map at a picture's size, smooth, from 0 to 1.

    Scaled to 0 to 1, resized by cubic interpolation, blurred by a Gaussian of 0.02 of the longer
    side, and scaled to 0 to 1 again. A map without contrast becomes 0 everywhere. The order of
    steps is that of AGLA's code; the cubic kernel (a = -0.75) and the mirrored border are ours.

    Args:
        relevance: Relevance of each patch.
        size: Height and width of the picture.

    Example:
        >>> import torch
        >>> smooth = smooth_relevance(torch.tensor([[0.0, 2.0], [0.0, 2.0]]), (6, 6))
        >>> smooth[0, 0].item(), smooth[0, -1].item()
        (0.0, 1.0)
    """
    scaled = _from_0_to_1(relevance)[None, None]
    resized = interpolate(scaled, size, mode="bicubic", align_corners=False)[0, 0]
    sigma = 0.02 * max(size)
    blurred = _blur_rows(_blur_rows(resized, sigma).mT, sigma).mT
    return _from_0_to_1(blurred)


def kept_pixels(
    relevance: Float[Tensor, "height width"], similarity: float
) -> Bool[Tensor, "height width"]:
    """Return the pixels that stay: those at or above the value at rank `int(N ratio)`.

    Ranks go down from the largest, and `ratio = min(1 - similarity / 2, 1 - 1e-5)`: the better
    picture and text fit, the more pixels go. Pixels that tie with that value stay. AGLA (arXiv
    2406.12718), as its code computes it.

    Example:
        >>> import torch
        >>> kept_pixels(torch.arange(10.0).reshape(2, 5), 1.0).tolist()
        [[False, False, False, False, True], [True, True, True, True, True]]
    """
    ratio = min(1 - similarity / 2, _LARGEST_RATIO)
    ranked = relevance.flatten().sort(descending=True).values
    return relevance >= ranked[int(len(ranked) * ratio)]


def mask_image(image: Any, match: ImageMatch, *, keep_aspect: bool = False) -> Any:
    """Return a picture in which every pixel that does not matter is black.

    Args:
        image: A picture of Pillow.
        match: How the matcher saw it.
        keep_aspect: Keep the picture's own size. By default it becomes the square that the matcher
            saw, as in the published code, which loses its proportions.

    Raises:
        InterventionError: This is no picture of Pillow.
    """
    import numpy as np
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise InterventionError(
            f"mask_image() takes a PIL.Image.Image; got {type(image).__name__}. "
            "Image.fromarray() makes one of an array"
        )
    picture = image.convert("RGB")
    if not keep_aspect:
        picture = picture.resize((match.side, match.side), Image.Resampling.BICUBIC)
    relevance = smooth_relevance(match.relevance.cpu(), (picture.height, picture.width))
    kept = kept_pixels(relevance, match.similarity).numpy()
    return Image.fromarray(np.asarray(picture) * kept[..., None].astype(np.uint8))


def _from_0_to_1(values: Tensor) -> Tensor:
    lifted = values - values.min()
    return lifted / lifted.max() if lifted.max() > 0 else lifted


def _blur_rows(picture: Tensor, sigma: float) -> Tensor:
    """Blur along the last axis, the border mirrored with its own pixels."""
    radius, length = int(_WIDTHS * sigma + 0.5), picture.shape[-1]
    steps = torch.arange(-radius, radius + 1, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    places = torch.arange(-radius, length + radius) % (2 * length)
    mirrored = picture[:, torch.minimum(places, 2 * length - 1 - places)]
    return conv1d(mirrored[:, None], (kernel / kernel.sum())[None, None])[:, 0]
