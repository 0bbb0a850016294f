"""Some windows of an operator whose last batch axis is the window, and its parts heads first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Int
from torch import Tensor

from attnscope.attention.bias import DenseBias
from attnscope.attention.dense import DenseAttention
from attnscope.attention.mask import Mask
from attnscope.attention.softmax import SoftmaxAttention

__all__ = ["Inner", "chosen_windows", "heads_first", "windows_first"]

Inner = SoftmaxAttention | DenseAttention


def chosen_windows(inner: Inner, chosen: Int[Tensor, " some_window"]) -> Inner:
    """Return the operator of chosen windows, counted through all batch axes in order.

    What is known of the log normalizers is kept, and so is the graph.
    """
    if isinstance(inner, DenseAttention):
        return DenseAttention(_own(inner.pattern, 3, chosen), offset=None)
    bias, known = inner.bias, inner._normalizer.known
    if isinstance(bias, DenseBias):
        bias = DenseBias(_shared(bias.values, 3, chosen))
    selected = SoftmaxAttention(
        _own(inner.query, 3, chosen),
        _own(inner.key, 3, chosen),
        inner.scale,
        mask=_chosen_mask(inner.mask, chosen),
        bias=bias,
        softcap=inner.softcap,
        sinks=inner.sinks,
    )
    selected._normalizer.known = None if known is None else known.index_select(0, chosen)
    return selected


def _chosen_mask(mask: Mask, chosen: Tensor) -> Mask:
    arrays: dict[str, Any] = {
        name: _shared(array, 2 if name == "allowed" else 1, chosen)
        for name, array in mask.parts()[0].items()
    }
    return replace(mask, **arrays)


def _own(array: Tensor, axes: int, chosen: Tensor) -> Tensor:
    """Choose among all batch axes, which are those before the last `axes`."""
    return array.reshape(-1, *array.shape[array.ndim - axes :]).index_select(0, chosen)


def _shared(array: Tensor, axes: int, chosen: Tensor) -> Tensor:
    """Choose as `_own` does where each window has its own array; one for all stays one for all."""
    lead, rest = array.shape[: array.ndim - axes], array.shape[array.ndim - axes :]
    return array.reshape(rest) if lead.numel() == 1 else _own(array, axes, chosen)


def heads_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an inner operator's parts in the order of a file: heads, then windows.

    A mask entry by entry has windows and no heads; it becomes a matrix, so that no reader takes
    its windows for heads.
    """
    return {name: _flat_mask(name, _exchanged(name, part)) for name, part in tensors.items()}


def windows_first(
    tensors: Mapping[str, Tensor], query_slots: int, key_slots: int
) -> dict[str, Tensor]:
    """Return the parts that `heads_first` was given."""
    slots = query_slots, key_slots
    return {
        name: part.unflatten(1, slots)
        if name.endswith("mask.allowed") and part.shape != slots
        else _exchanged(name, part)
        for name, part in tensors.items()
    }


def _exchanged(name: str, part: Tensor) -> Tensor:
    """Exchange windows and heads where a part has both; a second time undoes it."""
    both = part.ndim > 3 or name.endswith("log_normalizer")
    return part.transpose(0, 1) if both else part


def _flat_mask(name: str, part: Tensor) -> Tensor:
    return part.flatten(1) if name.endswith("mask.allowed") else part
