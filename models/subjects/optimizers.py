"""The optimizers of the training scripts: Muon for the layers' matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import AdamW, Optimizer

WARM_UP_STEPS = 50
DECAY_SHARE = 0.4


def build_optimizers(model: nn.Module, *, matrix_rate: float, rate: float) -> list[Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for the embeddings and the norms.

    Muon came with torch 2.9.
    """
    from torch.optim import Muon

    matrices = [
        weight
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and ".layers." in name
    ]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [
        Muon(matrices, lr=matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule_factor(step: int, steps: int) -> float:
    """Return the share of the full learning rate: a short rise, a plateau, a straight fall to zero.

    >>> [schedule_factor(step, 1000) for step in (0, 49, 599, 800, 1000)]
    [0.02, 1.0, 1.0, 0.5, 0.0]
    """
    rise = (step + 1) / WARM_UP_STEPS
    fall = (steps - step) / (steps * DECAY_SHARE)
    return max(0.0, min(1.0, rise, fall))


def set_rates(optimizers: Sequence[Optimizer], full_rates: Sequence[float], factor: float) -> None:
    """Set each optimizer's learning rate to its full rate times `factor`."""
    for optimizer, full_rate in zip(optimizers, full_rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = full_rate * factor
