"""What the vision tower is taught first: which object lies on each patch, how large and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from attnscope.models.subjects.glimpse.conversations import picture_values
from attnscope.models.subjects.glimpse.processor import PATCH
from attnscope.models.subjects.glimpse.scenes import CANVAS, OBJECTS, Scene

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

NOTHING = len(OBJECTS)
MARGIN = 1.7
"""Pixels beyond its radius at which a patch's centre still counts as on an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchLabels:
    """What lies on each patch of some scenes.

    Attributes:
        objects: Index in `OBJECTS` of the nearest object that reaches the patch's centre, or
            `NOTHING`.
        large: Whether that object is large.
        centres: Where its centre is: right and down, from -1 to 1.
        holds_centre: Whether its centre lies on this patch.
    """

    objects: Int[Tensor, "item patch"]
    large: Bool[Tensor, "item patch"]
    centres: Float[Tensor, "item patch 2"]
    holds_centre: Bool[Tensor, "item patch"]

    def to(self, device: str) -> PatchLabels:
        """Return the labels on a device."""
        return PatchLabels(
            **{name: getattr(self, name).to(device) for name in PatchLabels.__slots__}
        )


def patch_labels(scenes: list[Scene]) -> PatchLabels:
    """Return the labels of all patches, in raster order."""
    rows = [_labels_of(scene) for scene in scenes]
    objects, large, centres, holds = (
        torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)
    )
    return PatchLabels(objects=objects, large=large, centres=centres.float(), holds_centre=holds)


def _labels_of(scene: Scene) -> tuple[np.ndarray, ...]:
    middles = np.arange(PATCH / 2, CANVAS, PATCH)
    down, right = (axis.ravel() for axis in np.meshgrid(middles, middles, indexing="ij"))
    places = np.array([[thing.x, thing.y] for thing in scene.objects])
    reach = np.array([thing.radius + MARGIN for thing in scene.objects])
    distance = np.hypot(right[:, None] - places[:, 0], down[:, None] - places[:, 1]) - reach
    nearest = distance.argmin(axis=1)
    covered = distance.min(axis=1) < 0
    index = np.array([OBJECTS.index(thing.name) for thing in scene.objects])
    large = np.array([thing.size == "large" for thing in scene.objects])
    centre = places[nearest]
    gap = np.abs(centre - np.stack([right, down], axis=1)).max(axis=1)
    return (
        np.where(covered, index[nearest], NOTHING),
        large[nearest],
        centre / (CANVAS / 2) - 1,
        covered & (gap <= PATCH / 2),
    )


class PatchReadOut(nn.Module):
    """Linear read-outs of a tower's patches; thrown away when the tower has been taught."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.object = nn.Linear(width, NOTHING + 1)
        self.large = nn.Linear(width, 1)
        self.centre = nn.Linear(width, 2)
        self.holds_centre = nn.Linear(width, 1)

    def forward(
        self, features: Float[Tensor, "item patch width"], labels: PatchLabels
    ) -> Float[Tensor, ""]:
        """Return the sum of the four losses; what lies on an empty patch is not asked."""
        covered = labels.objects != NOTHING
        inside = features[covered]
        return (
            cross_entropy(self.object(features).flatten(0, 1), labels.objects.flatten())
            + cross_entropy(self.object(inside), labels.objects[covered])
            + binary_cross_entropy_with_logits(
                self.large(inside)[:, 0], labels.large[covered].float()
            )
            + mse_loss(self.centre(inside), labels.centres[covered])
            + binary_cross_entropy_with_logits(
                self.holds_centre(features)[..., 0], labels.holds_centre.float()
            )
        )


def tower_features(
    tower: CLIPVisionModel, scenes: list[Scene]
) -> Float[Tensor, "item patch width"]:
    """Return what the decoder will see of the patches: the last layer, without the class token."""
    values = picture_values(scenes).to(next(tower.parameters()).device)
    return tower(pixel_values=values).last_hidden_state[:, 1:]
