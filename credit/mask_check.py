"""`check_mask`: whether the model hides what we take it to hide.

Sequences are cut out of padded and packed rows and read as plain causal, or windowed. Where the
model holds a mask array, a few rows of it are compared with that; where it holds none, nothing but
the causal rule can be hidden.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from attnscope.credit.errors import CreditError
from attnscope.credit.layout import Stretch
from attnscope.credit.overheard_calls import OverheardCall

__all__ = ["check_mask"]

_SAMPLED = 6


def check_mask(
    call: OverheardCall, stretches: Sequence[Stretch], first_row: int, window: int | None
) -> None:
    """Refuse a model that reads across sequences, or hides more than a window.

    Args:
        call: A call of the pass.
        stretches: The sequences that are read in it.
        first_row: First row of the pass in the whole batch.
        window: The sliding window of the layer, its own token included; None for none.

    Raises:
        CreditError: The model's mask is another.
    """
    if isinstance(call.mask, Tensor) and call.mask.ndim == 4:
        visible = _visible(call.mask)
        for stretch in stretches:
            row = visible[min(stretch.row - first_row, len(visible) - 1), 0]
            _compare(row, stretch, window, call)
    elif call.mask is None and not _separates(call):
        for stretch in stretches:
            if stretch.start:
                raise CreditError(
                    f"the model reads across sequences: one begins at column {stretch.start}, and "
                    f"{type(call.module).__name__} was given no mask; pass attention_mask (padded) "
                    "or position_ids (packed) to the policy"
                )


def _separates(call: OverheardCall) -> bool:
    """Return whether the kernel may separate packed sequences without a mask."""
    config: Any = getattr(call.module, "config", None)
    return "flash" in str(getattr(config, "_attn_implementation", ""))


def _visible(mask: Tensor) -> Bool[Tensor, "batch head query key"]:
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def _compare(
    visible: Bool[Tensor, "query key"], stretch: Stretch, window: int | None, call: OverheardCall
) -> None:
    count = min(_SAMPLED, stretch.length)
    rows = torch.linspace(stretch.start, stretch.stop - 1, count, device=visible.device).long()
    key = torch.arange(visible.shape[-1], device=visible.device)
    distance = rows[:, None] - key
    expected = (distance >= 0) & (key >= stretch.start)
    if window is not None:
        expected = expected & (distance < window)
    if not torch.equal(visible[rows], expected):
        raise CreditError(
            f"{type(call.module).__name__} hides other keys than the causal rule"
            f"{'' if window is None else f' with a window of {window}'} in the sequence at columns "
            f"{stretch.start} to {stretch.stop - 1}; credit reads causal and windowed attention of "
            "separate sequences"
        )
