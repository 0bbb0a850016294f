"""`HeadCalibration`: which heads are read as local, global and receiver heads, fixed and kept."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.credit.errors import CreditError
from attnscope.credit.preset import Preset
from attnscope.metrics import receiver_heads
from attnscope.traces import replacement

__all__ = ["HeadCalibration", "calibration_of", "load_calibration"]

_FORMAT = "attnscope head calibration"
_VERSION = 1
_GROUPS = ("local_heads", "global_heads", "receiver_heads")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadCalibration:
    """Groups of heads in the layers that are read.

    Made once and kept, it gives every batch the same heads, so that a reading can be followed over
    training; only the heads of a group are then measured. Record it with every run: how heads are
    ranked changes the groups noticeably.

    Attributes:
        layers: The layers that are read.
        spans: Mean look-back distance of each of their heads, which the groups were made by.
        local_heads: The heads that look back least.
        global_heads: The heads that look back furthest.
        receiver_heads: The heads whose later sentences return to few earlier ones, if known.
    """

    layers: tuple[int, ...]
    spans: Float[Tensor, "layer head"]
    local_heads: Bool[Tensor, "layer head"]
    global_heads: Bool[Tensor, "layer head"]
    receiver_heads: Bool[Tensor, "layer head"] | None = None

    def with_receivers(
        self, scores: Float[Tensor, "layer head"], count: int = 20
    ) -> "HeadCalibration":
        """Return the calibration with the heads of the highest receiver scores.

        Args:
            scores: Receiver scores of the same layers' heads, as the metric `receiver_score`, best
                averaged over many responses.
            count: Number of receiver heads.
        """
        return replace(self, receiver_heads=receiver_heads(scores, count).cpu())

    def group(self, name: str) -> Bool[Tensor, "layer head"]:
        """Return a group by its name.

        Raises:
            CreditError: The calibration has no such group.
        """
        members = getattr(self, name) if name in _GROUPS else None
        if members is None:
            raise CreditError(
                f"the calibration has no {name}; HeadCalibration.with_receivers(scores) adds the "
                "receiver heads"
            )
        return members

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "layers": list(self.layers),
            "spans": [[None if x != x else x for x in row] for row in self.spans.tolist()],
        }
        for name in _GROUPS:
            members = getattr(self, name)
            content[name] = None if members is None else members.nonzero().tolist()
        with replacement(Path(path)) as stream:
            stream.write(json.dumps(content, indent=1).encode())


def calibration_of(
    spans: Float[Tensor, "layer head"], layers: tuple[int, ...], preset: Preset
) -> HeadCalibration:
    """Return the groups that a preset makes of mean head spans.

    The mean over responses, each counting once, is our reading: the paper ranks heads by their span
    without saying over what.

    Reference: Li et al. 2025, arXiv:2510.13554, section 4.1.
    """
    groups = preset.grouping(spans.cpu(), preset.rhythm.quantile)
    return HeadCalibration(
        layers=layers,
        spans=spans.cpu(),
        local_heads=groups.local_heads,
        global_heads=groups.global_heads,
    )


def load_calibration(path: str | Path) -> HeadCalibration:
    """Return a calibration that was saved.

    Raises:
        CreditError: The file is not a calibration, or of a newer version.
    """
    try:
        content = json.loads(Path(path).read_text())
        known = content["format"] == _FORMAT and content["version"] == _VERSION
    except (ValueError, KeyError, TypeError) as error:
        raise CreditError(f"{path} is no head calibration: {error}") from error
    if not known:
        raise CreditError(
            f"{path} holds {content['format']!r}, version {content['version']}; "
            f"this reads {_FORMAT!r}, version {_VERSION}"
        )
    spans = torch.tensor([[torch.nan if x is None else x for x in row] for row in content["spans"]])
    receivers = content["receiver_heads"]
    return HeadCalibration(
        layers=tuple(content["layers"]),
        spans=spans,
        local_heads=_members(content["local_heads"], spans),
        global_heads=_members(content["global_heads"], spans),
        receiver_heads=None if receivers is None else _members(receivers, spans),
    )


def _members(
    places: list[list[int]], spans: Float[Tensor, "layer head"]
) -> Bool[Tensor, "layer head"]:
    members = torch.zeros_like(spans, dtype=torch.bool)
    for layer, head in places:
        members[layer, head] = True
    return members
