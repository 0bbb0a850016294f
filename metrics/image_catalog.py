"""The part of the catalog that asks where on an image attention looks."""

from attnscope.metrics.metric import Metric
from attnscope.metrics.observing import of_patches
from attnscope.metrics.patch_locality import (
    nonlocality,
    patch_distance,
    patch_window_mass,
    relative_nonlocality,
)
from attnscope.metrics.picture_catalog import PICTURE_CATALOG

__all__ = ["IMAGE_CATALOG"]

_VIT = "Dosovitskiy et al. 2020, arXiv:2010.11929, mean attention distance"
_HEAD = ("layer", "head")

IMAGE_CATALOG: tuple[Metric, ...] = (
    Metric(
        name="patch_distance",
        title="Mean attention distance on the image",
        unit="pixels",
        axes=_HEAD,
        bounds=(0.0, None),
        needs=("shares", "grid"),
        paper=_VIT,
        measure=of_patches(patch_distance),
        options={"image": 0, "patch_size": 16.0},
    ),
    Metric(
        name="nonlocality",
        title="Nonlocality",
        unit="patches",
        axes=("layer",),
        bounds=(0.0, None),
        needs=("shares", "grid"),
        paper="d'Ascoli et al. 2021, arXiv:2103.10697, equation 8",
        measure=of_patches(nonlocality),
        options={"image": 0},
    ),
    Metric(
        name="relative_nonlocality",
        title="Nonlocality, share of the uniform head's",
        axes=_HEAD,
        bounds=(0.0, None),
        needs=("shares", "grid"),
        paper="d'Ascoli et al. 2021, arXiv:2103.10697, equation 8; the share is ours",
        measure=of_patches(relative_nonlocality),
        options={"image": 0},
    ),
    Metric(
        name="patch_window_mass",
        title="Attention within a disk of patches",
        axes=("layer", "head", "patch"),
        bounds=(0.0, 1.0),
        needs=("shares", "grid"),
        paper="our own measure",
        measure=of_patches(patch_window_mass),
        options={"image": 0, "radius": 1.0},
    ),
    *PICTURE_CATALOG,
)
"""Metrics of patches and of pictures, in the order in which screens list them."""
