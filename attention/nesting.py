"""Operators inside of operators: how their parts are named where the outer one is stored."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator

__all__ = ["nested_parts", "operator_from"]


def nested_parts(
    name: str, operator: AttentionOperator
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an inner operator's parts, its tensors' names led by `name` and a dot.

    Raises:
        OperatorError: The inner operator is of a kind that is not stored.
    """
    _kind(type(operator).__name__)
    tensors, facts = operator.parts()
    named = {f"{name}.{part}": tensor for part, tensor in tensors.items()}
    return named, {name: {"kind": type(operator).__name__, "facts": facts}}


def operator_from(
    name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> AttentionOperator:
    """Return the inner operator whose parts `nested_parts` named.

    Raises:
        OperatorError: There is no such inner operator, or it is of an unknown kind.
    """
    if name not in facts:
        raise OperatorError(f"no operator {name!r} is stored here; there are {sorted(facts)}")
    prefix = f"{name}."
    own = {
        part[len(prefix) :]: tensor for part, tensor in tensors.items() if part.startswith(prefix)
    }
    return _kind(facts[name]["kind"]).from_parts(own, facts[name]["facts"])


def _kind(name: str) -> type[AttentionOperator]:
    # The table imports every operator, and operators that hold others import this file.
    from attnscope.attention.stored import OPERATORS

    if name not in OPERATORS:
        raise OperatorError(f"a {name} is not stored; files hold {', '.join(OPERATORS)}")
    return OPERATORS[name]
