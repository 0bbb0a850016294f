"""Whether the groups of heads stay the same: from text to text, and while a policy is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.credit import HeadCalibration, calibrate, completion_batch
from attnscope.metrics import head_groups
from benchmarks.credit.arms import SCALED
from benchmarks.credit.perturbation import jaccard
from benchmarks.credit.policy import CHECKPOINTS, load_policy
from benchmarks.credit.run import KEPT_ARMS, SUPERVISED, calibration_rollout

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["Stability", "over_texts", "over_training"]

_SPLITS, _SEED = 200, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Agreement of two rankings of the same heads.

    Attributes:
        local: Shared part of the two groups of local heads, 1 if they are the same (Jaccard).
        global_: The same of the global heads.
        correlation: Correlation of the heads' spans.
    """

    local: float
    global_: float
    correlation: float


def over_texts(spans: Float[Tensor, "text layer head"], quantile: float = 0.3) -> list[Stability]:
    """Return the agreement of two random halves of the texts, for many halvings."""
    generator = torch.Generator().manual_seed(_SEED)
    found = []
    for _ in range(_SPLITS):
        order = torch.randperm(len(spans), generator=generator)
        half = len(spans) // 2
        found.append(
            agreement(spans[order[:half]].nanmean(0), spans[order[half:]].nanmean(0), quantile)
        )
    return found


def agreement(
    one: Float[Tensor, "layer head"], other: Float[Tensor, "layer head"], quantile: float = 0.3
) -> Stability:
    """Return the agreement of two tables of spans.

    Example:
        >>> spans = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        >>> agreement(spans, spans.flip(-1), quantile=0.25)
        Stability(local=0.0, global_=0.0, correlation=-1.0)
    """
    first, second = head_groups(one, quantile), head_groups(other, quantile)
    return Stability(
        local=jaccard(_members(first.local_heads), _members(second.local_heads)),
        global_=jaccard(_members(first.global_heads), _members(second.global_heads)),
        correlation=round(
            float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]), 6
        ),
    )


def _members(mask: Bool[Tensor, "layer head"]) -> frozenset[tuple[int, ...]]:
    return frozenset(map(tuple, mask.nonzero().tolist()))


def over_training() -> dict[str, Stability]:
    """Return the agreement before and after training, by the names of the policies that were kept.

    Both policies are ranked on responses of their own. Empty as long as no run was kept.
    """
    found = {}
    for supervised in SUPERVISED:
        before = _calibration(load_policy(CHECKPOINTS / f"supervised-{supervised}.safetensors"))
        for arm in KEPT_ARMS:
            path = CHECKPOINTS / f"{arm}-{supervised}.safetensors"
            if path.exists():
                after = _calibration(load_policy(path))
                found[path.stem] = agreement(before.spans, after.spans)
    return found


def _calibration(policy: "LlamaForCausalLM") -> HeadCalibration:
    rollout = calibration_rollout(policy)
    ones = torch.ones_like(rollout.prompts)
    batch = completion_batch(rollout.prompts, ones, rollout.responses, rollout.mask)
    return calibrate(policy, batch, SCALED, micro_batch=len(rollout.mask))


def mean_of(found: Sequence[Stability]) -> Stability:
    """Return the mean agreement."""
    return Stability(
        local=sum(one.local for one in found) / len(found),
        global_=sum(one.global_ for one in found) / len(found),
        correlation=sum(one.correlation for one in found) / len(found),
    )
