"""How an operator shows itself: as a line of text and as a table for notebooks."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from attnscope.attention.operator import AttentionOperator

__all__ = ["describe", "held_bytes", "to_html"]


def describe(operator: "AttentionOperator") -> str:
    """Return the mechanism and its sizes."""
    return (
        f"{type(operator).__name__}(heads={operator.heads}, queries={operator.queries}, "
        f"keys={operator.keys}, {str(operator.dtype).removeprefix('torch.')})"
    )


def to_html(operator: "AttentionOperator") -> str:
    """Return the same as HTML, with what rows are and what is held in place of a map."""
    batch = operator.shape[:-3]
    facts = {
        "batch": " x ".join(map(str, batch)),
        "heads": f"{operator.heads:,}",
        "queries": f"{operator.queries:,} x {operator.query_axis}",
        "keys": f"{operator.keys:,} x {operator.key_axis}",
        "rows": _rows(operator),
        "held": f"{held_bytes(operator):,} bytes",
        "as a map": f"{operator.shape.numel() * operator.dtype.itemsize:,} bytes",
    }
    rows = "".join(
        f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in facts.items() if text
    )
    return f"<table><caption>{type(operator).__name__}</caption>{rows}</table>"


def held_bytes(operator: "AttentionOperator") -> int:
    """Return the bytes of all tensors in an operator, shared ones counted once; none is computed.

    Example:
        >>> import torch
        >>> from attnscope.attention import SoftmaxAttention
        >>> factor = torch.zeros(2, 100, 8)  # as query and as key
        >>> held_bytes(SoftmaxAttention(factor, factor))  # the maps: 2 x 100 x 100 x 4 = 80,000
        6400
    """
    sizes: dict[int, int] = {}  # by address: a view counts with what it is a view of
    for found in _tensors(operator, set()):
        sizes[found.data_ptr()] = max(sizes.get(found.data_ptr(), 0), _bytes(found))
    return sum(sizes.values())


def _tensors(held: object, met: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in an object of ours, and in what it holds in turn."""
    if id(held) in met:
        return
    met.add(id(held))
    if isinstance(held, Tensor):
        yield held
    for part in _contents(held):
        yield from _tensors(part, met)


def _contents(held: object) -> Iterable[object]:
    if isinstance(held, Mapping):
        return held.values()
    if isinstance(held, list | tuple):
        return held
    if not type(held).__module__.startswith("attnscope."):
        return ()
    slots = getattr(type(held), "__slots__", ())
    return [*getattr(held, "__dict__", {}).values(), *(getattr(held, name) for name in slots)]


def _bytes(tensor: Tensor) -> int:
    # An expanded tensor has more entries than its memory has.
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _rows(operator: "AttentionOperator") -> str:
    kind = "signed weights" if operator.signed else "weights"
    reach = ", of the past only" if operator.causal else ""
    return ("distributions" if operator.stochastic else kind) + reach
