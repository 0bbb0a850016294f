"""The mask argument of torch's fused attention, as rules where it follows rules."""

import torch
from torch import Tensor

from attnscope.attention import Bias, DenseBias, Mask, RelativeBias
from attnscope.probes.errors import CaptureError

__all__ = ["compact_bias", "mask_and_bias"]


def mask_and_bias(
    given: Tensor | None, shape: torch.Size, *, causal: bool = False
) -> tuple[Mask, Bias | None]:
    """Return what a mask argument hides, and what it adds to the scores.

    Args:
        given: What torch calls `attn_mask`: true where a query may look, or numbers to add.
        shape: `(batch, head, query, key)`.
        causal: What torch calls `is_causal`: a triangle aligned at the top left.

    Raises:
        CaptureError: A query is given the lowest number for every key.

    Example:
        >>> lower = torch.ones(3, 3, dtype=torch.bool).tril()
        >>> mask, bias = mask_and_bias(lower, torch.Size((1, 2, 3, 3)))
        >>> mask.is_plain_causal, bias
        (True, None)
    """
    if given is None:
        return Mask(after=0 if causal else None), None
    given = given.reshape(*[1] * (4 - given.ndim), *given.shape)
    given = given.expand(-1, -1, shape[2], shape[3])
    if given.dtype == torch.bool:
        hidden, added = ~given, torch.zeros((), device=given.device)
    else:
        hidden = _hidden(given)
        added = given.masked_fill(hidden, 0)
    if bool((hidden != hidden[:, :1]).any()):  # heads differ in what they see, a `Mask` cannot
        return Mask(), DenseBias(added.masked_fill(hidden, -torch.inf))
    bias = compact_bias(added) if bool(added.any()) else None
    return _rules(~hidden[:, 0]), bias


def compact_bias(values: Tensor) -> Bias:
    """Return a bias that depends on the distance alone by its diagonals, any other as it is."""
    table = values[0]
    if values.shape[0] == 1 and torch.equal(table[:, 1:, 1:], table[:, :-1, :-1]):
        diagonals = torch.cat([table[:, 1:, 0].flip(-1), table[:, 0]], dim=-1)
        return RelativeBias(diagonals, zero=table.shape[1] - 1)
    return DenseBias(values)


def _hidden(added: Tensor) -> Tensor:
    """Return which entries vanish: -inf, or the lowest number beside a common one."""
    low, nothing = added <= torch.finfo(added.dtype).min / 2, added == -torch.inf
    erased = low.all(-1) & ~nothing.all(-1)
    if bool(erased.any()):
        raise CaptureError(
            f"an attention mask adds {float(added.min()):.2g} to every key of "
            f"{int(erased.any(0).any(0).sum())} queries, which erases their scores in rounding: "
            "the map that is left is no softmax of them; hide keys by -inf or false"
        )
    return low


def _rules(allowed: Tensor) -> Mask:
    """Return the entries as a window of distances, as keys that exist, or one by one."""
    if bool(allowed.all()):
        return Mask()
    if bool((allowed == allowed[:, :1]).all()):
        return Mask(key_valid=allowed[:, 0])
    queries, keys = allowed.shape[-2:]
    if queries != keys or not bool(allowed.any()):
        return Mask(allowed=allowed)
    places = torch.arange(keys, device=allowed.device)
    ahead = (places[None, :] - places[:, None])[allowed.any(0)]
    furthest, nearest = int(ahead.max()), -int(ahead.min())
    window = Mask(
        before=None if nearest == keys - 1 else nearest,
        after=None if furthest == keys - 1 else furthest,
    )
    if bool((window.tile(places, places) == allowed).all()):
        return window
    return Mask(after=min(furthest, 0) if furthest <= 0 else None, allowed=allowed)
