"""`SiteCard`: what the numbers of one site are, and how they were obtained."""

from dataclasses import dataclass
from typing import Any

from attnscope.attention import (
    AttentionOperator,
    Mask,
    OperatorError,
    SoftmaxAttention,
    WindowedAttention,
)

__all__ = ["SiteCard", "site_card"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCard:
    """What the numbers of one site are, in words that can be checked.

    Attributes:
        operator: Kind of the operator.
        numbers: What an entry is: a weight after the softmax, or a weight as it was applied.
        rows: What the entries of a row sum to.
        mask: Which keys a query sees; empty where the operator has no mask.
        window: Keys that a query sees at most, itself included; None without a sliding window.
        softcap: Bound of the scores; None for none.
        sinks: Whether a learned column takes a share of every row.
        bias: What is added to the scores; empty for nothing.
        dtype: Type of the factors.
        library: Whose modules were heard; empty where it is not known.
        computation: What computed the attention: fused kernels, a blocked softmax, or the model
            itself.
        heads: Numbers in the model of the heads that are kept; None for all of them.
        lost: What a reduction took away.
    """

    operator: str
    numbers: str
    rows: str
    mask: str = ""
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    bias: str = ""
    dtype: str = ""
    library: str = ""
    computation: str = ""
    heads: tuple[int, ...] | None = None
    lost: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the facts as one line."""
        facts = [f"{self.operator}: {self.numbers}", self.rows, self.mask]
        if self.softcap is not None:
            facts.append(f"scores capped at {self.softcap:g}")
        if self.bias:
            facts.append(f"with a bias ({self.bias})")
        facts.append(self.dtype)
        if self.heads is not None:
            facts.append(f"heads {', '.join(map(str, self.heads))} of the model")
        facts.append(self.computation and f"computed by {self.computation}")
        facts.append(self.library and f"heard in {self.library}")
        facts += [f"lost: {loss}" for loss in self.lost]
        return ", ".join(fact for fact in facts if fact)


def site_card(
    attention: AttentionOperator, *, library: str = "", computation: str = ""
) -> SiteCard:
    """Return what an operator says of its numbers; nothing is computed.

    Example:
        >>> import torch
        >>> card = site_card(SoftmaxAttention(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)))
        >>> card.numbers, card.rows, card.mask, card.dtype
        ('weights after softmax', 'rows sum to 1', 'causal', 'float32')
    """
    inner = attention.inner if isinstance(attention, WindowedAttention) else attention
    softmax: dict[str, Any] = {}
    if isinstance(inner, SoftmaxAttention):
        softmax = {
            "mask": mask_in_words(inner.mask),
            "window": None if inner.mask.before is None else inner.mask.before + 1,
            "softcap": inner.softcap,
            "sinks": inner.sinks is not None,
            "bias": "" if inner.bias is None else type(inner.bias).__name__,
        }
    after = isinstance(inner, SoftmaxAttention)
    return SiteCard(
        operator=type(attention).__name__,
        numbers="weights after softmax" if after else "weights as they are applied",
        rows=_rows(attention, sinks=softmax.get("sinks", False)),
        dtype=_dtype(attention),
        library=library,
        computation=computation,
        **softmax,
    )


def mask_in_words(mask: Mask) -> str:
    """Return the rules of a mask in words.

    Example:
        >>> mask_in_words(Mask(after=0, before=3)), mask_in_words(Mask())
        ('causal, sliding window of 4', 'sees all')
    """
    rules = [
        "causal" if mask.after == 0 else None if mask.after is None else f"{mask.after} ahead",
        None if mask.before is None else f"sliding window of {mask.before + 1}",
        None if mask.chunk is None else f"chunks of {mask.chunk}",
        "some keys hidden" if mask.key_valid is not None else None,
        "packed sequences" if mask.key_segment is not None else None,
        "blocks that see themselves" if mask.key_block is not None else None,
        "entry by entry" if mask.allowed is not None else None,
    ]
    return ", ".join(rule for rule in rules if rule) or "sees all"


def _rows(attention: AttentionOperator, *, sinks: bool) -> str:
    if attention.stochastic:
        return "rows sum to 1"
    if sinks:
        return "rows sum to less than 1 (a learned sink column takes the rest)"
    return "signed" if attention.signed else "rows have any sum"


def _dtype(attention: AttentionOperator) -> str:
    """Return the types of the factors; normalizers, which are always precise, do not count."""
    try:
        parts = attention.parts()[0]
    except OperatorError:
        return str(attention.dtype).removeprefix("torch.")
    kinds = {
        str(part.dtype).removeprefix("torch."): None
        for name, part in parts.items()
        if part.is_floating_point() and not name.endswith(("log_normalizer", "lost"))
    }
    return ", ".join(kinds)
