"""The arguments of a `SoftmaxAttention`: whether they fit, and as tensors and plain facts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attnscope.attention.bias import BIASES
from attnscope.attention.errors import OperatorError
from attnscope.attention.mask import Mask
from attnscope.attention.operator import AttentionOperator

__all__ = ["check_factors", "check_fit", "mask_of", "packed", "unpacked"]


def check_factors(query: Tensor, key: Tensor, sinks: Tensor | None) -> None:
    """Refuse factors that do not fit each other.

    Raises:
        OperatorError: Axes, numbers of heads or types differ.
    """
    if query.ndim < 3 or query.shape[:-3] != key.shape[:-3] or query.shape[-1] != key.shape[-1]:
        raise OperatorError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} do not fit; they need the "
            "shapes (*batch, head, query, dim) and (*batch, kv_head, key, dim)"
        )
    if key.shape[-3] == 0 or query.shape[-3] % key.shape[-3]:
        raise OperatorError(
            f"{query.shape[-3]} query heads cannot share {key.shape[-3]} key heads evenly"
        )
    if sinks is not None and sinks.shape != query.shape[-3:-2]:
        raise OperatorError(
            f"sinks has shape {tuple(sinks.shape)}; one logit for each of {query.shape[-3]} heads"
        )
    if query.dtype != key.dtype:
        raise OperatorError(f"query is {query.dtype}, key is {key.dtype}; they need one type")


def mask_of(mask: Mask | None, causal: bool | None, query: Tensor, key: Tensor) -> Mask:
    """Return the mask that was given, or the causal one, the last query at the last key.

    Raises:
        OperatorError: Both a mask and `causal` were given, or the mask's arrays do not fit.
    """
    if mask is None:
        if causal is False:
            return Mask()
        return Mask(after=0, query_origin=key.shape[-2] - query.shape[-2])
    if causal is not None:
        raise OperatorError("give causal= or mask=, not both: Mask(after=0) is the causal mask")
    mask.check(query.shape[:-3], query.shape[-2], key.shape[-2])
    return mask


def check_fit(what: str, given: Tensor, operator: AttentionOperator, axis: str) -> None:
    """Refuse values (of the keys) or weights (of the queries) that an operator cannot multiply.

    Raises:
        OperatorError: Batch axes, heads or rows differ from the operator's.
    """
    heads, length = operator.heads, operator.keys if axis == "key" else operator.queries
    counts = [count for count in range(1, heads + 1) if heads % count == 0]
    counts = counts if axis == "key" else [1, heads]
    sizes = [(*operator.shape[:-3], count, length) for count in counts]
    if tuple(given.shape[:-1]) not in sizes:
        raise OperatorError(
            f"{what} {tuple(given.shape)} do not fit {operator!r}; needed are the batch axes "
            f"{tuple(operator.shape[:-3])}, one of {counts} heads, {length} rows and any width"
        )


def packed(arguments: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return constructor arguments as tensors and as facts that JSON can hold."""
    facts = {name: arguments[name] for name in ("scale", "softcap", "query_axis", "key_axis")}
    tensors = {
        name: arguments[name] for name in ("query", "key", "sinks") if arguments[name] is not None
    }
    mask_tensors, facts["mask"] = arguments["mask"].parts()
    tensors |= {f"mask.{name}": tensor for name, tensor in mask_tensors.items()}
    facts["bias"] = None
    if arguments["bias"] is not None:
        bias_tensors, bias_facts = arguments["bias"].parts()
        facts["bias"] = {"kind": type(arguments["bias"]).__name__, "facts": bias_facts}
        tensors |= {f"bias.{name}": tensor for name, tensor in bias_tensors.items()}
    return tensors, facts


def unpacked(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments that `packed` described."""
    arguments = {name: facts[name] for name in ("scale", "softcap", "query_axis", "key_axis")}
    arguments |= {name: tensors.get(name) for name in ("query", "key", "sinks")}
    arguments["mask"] = Mask.from_parts(_under("mask.", tensors), facts["mask"])
    bias = facts["bias"]
    if bias is not None:
        kind = BIASES[bias["kind"]]
        arguments["bias"] = kind.from_parts(_under("bias.", tensors), bias["facts"])
    return arguments


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    chosen = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): tensor for name, tensor in chosen.items()}
