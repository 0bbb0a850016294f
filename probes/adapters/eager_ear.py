"""`EagerEar`: hears attention that a module computes by a softmax of its own.

The module runs as it always does, and goes on with its own numbers. What is heard is the first
product (queries and keys), the softmax, and the product of the map with the values. Factors are
kept where they give the map that was applied, and the map itself where they do not.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnscope.attention import AttentionOperator, DenseAttention
from attnscope.probes.attention_call import AttentionCall, Listener

__all__ = ["EagerEar", "Heard", "Reader", "as_it_is"]

_PRODUCTS = frozenset({"matmul", "__matmul__", "bmm", "baddbmm"})
_CALL = nn.Module._call_impl.__code__
_CHECKED_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was heard of one attention computation.

    Attributes:
        module: The module.
        arguments: What its forward was given, by name.
        query: The left side of its first product.
        key: The right side, transposed back.
        products: What came of it.
        scores: What entered the softmax.
        pattern: The map that it applied.
    """

    module: Any
    arguments: Mapping[str, Any]
    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch kv_head key dim"]
    products: Float[Tensor, "batch head query key"]
    scores: Float[Tensor, "batch head query some_key"]
    pattern: Float[Tensor, "batch head query key"]


Reader = Callable[[Heard], AttentionOperator]
"""Builds the operator of a module, or returns the map as it is."""


@dataclass(slots=True)
class _Open:
    """A computation that has begun: its first product, then what entered its softmax."""

    query: Tensor
    key: Tensor
    products: Tensor
    scores: Tensor | None = None


class EagerEar(TorchFunctionMode):
    """Hears the softmaxes of some modules, and hands them to a listener.

    Args:
        readers: How each module is read; the others are not heard.
        listener: Takes each call and returns the output that the model goes on with.
    """

    def __init__(self, readers: Mapping[nn.Module, Reader], listener: Listener) -> None:
        super().__init__()
        self._readers, self._listener = readers, listener
        self._open: dict[nn.Module, _Open] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Hear a torch function if it is a step of an attention."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _PRODUCTS:
            given = [*args, *(kwargs[side] for side in ("batch1", "batch2") if side in kwargs)]
            # What `baddbmm` adds is no part of the product.
            products = given[-2] @ given[-1] if name == "baddbmm" else result
            return self._product(given[-2:], products, result)
        if name == "softmax":
            self._note(args[0] if args else kwargs["input"])
        return result

    def _note(self, scores: Tensor) -> None:
        module, _ = self._caller()
        begun = None if module is None else self._open.get(module)
        if begun is not None and scores.ndim == 4:
            begun.scores = scores

    def _product(self, sides: list[Tensor], products: Tensor, result: Tensor) -> Tensor:
        left, right = sides
        module, arguments = self._caller()
        if module is None:
            return result
        begun = self._open.get(module)
        if begun is None or begun.scores is None:
            self._open.setdefault(module, _Open(left, right.mT, products))
            return result
        if left.numel() != begun.products.numel() or left.shape[-2:] != begun.products.shape[-2:]:
            return result
        del self._open[module]
        batch, heads, queries, _ = begun.scores.shape
        whole = (batch, heads, queries, left.shape[-1])
        heard = Heard(
            module=module,
            arguments=arguments,
            query=begun.query.reshape(batch, -1, queries, begun.query.shape[-1]),
            key=begun.key.reshape(batch, -1, whole[3], begun.key.shape[-1]),
            products=begun.products.reshape(whole),
            scores=begun.scores,
            pattern=left.reshape(whole),
        )
        return self._heard(heard, right, result)

    def _heard(self, heard: Heard, right: Tensor, result: Tensor) -> Tensor:
        attention = self._readers[heard.module](heard)
        if not _is_applied(attention, heard.pattern):
            attention = as_it_is(heard)
        batch, _, queries, keys = heard.pattern.shape
        output = self._listener(
            AttentionCall(
                module=heard.module,
                attention=attention,
                value=right.reshape(batch, -1, keys, right.shape[-1]),
                output=result.reshape(batch, -1, queries, result.shape[-1]),
                laid_out=True,
                library=type(heard.module).__module__.partition(".")[0],
                computation="the model itself",
            )
        )
        return output.reshape(result.shape)

    def _caller(self) -> tuple[nn.Module | None, Mapping[str, Any]]:
        """Return the innermost module that is read, and what its forward was given."""
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code is _CALL and frame.f_locals["self"] in self._readers:
                module = frame.f_locals["self"]
                given = inspect.signature(module.forward).bind(
                    *frame.f_locals["args"], **frame.f_locals["kwargs"]
                )
                return module, given.arguments
            frame = frame.f_back
        return None, {}


def as_it_is(heard: Heard) -> DenseAttention:
    """Return the map that the module applied: the last resort, `T x T` numbers."""
    crosses = heard.pattern.shape[-1] != heard.pattern.shape[-2]
    crosses = crosses or bool(getattr(heard.module, "is_cross_attention", False))
    return DenseAttention(heard.pattern, key_axis="memory" if crosses else "token")


def _is_applied(attention: AttentionOperator, pattern: Tensor) -> bool:
    """Return whether an operator is the map that was applied, on some of its rows.

    It is not where the module rounded its scores to 16 bits beside large penalties of distance.
    """
    rows = torch.linspace(0, attention.queries - 1, _CHECKED_ROWS).long().unique()
    expected = pattern.detach().index_select(-2, rows.to(pattern.device))
    with torch.no_grad():
        error = float((attention.rows(rows) - expected).abs().max())
    return error <= (1e-4 if pattern.dtype in (torch.float32, torch.float64) else 1e-2)
