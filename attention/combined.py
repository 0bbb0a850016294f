"""`Combined`: what all operators share that are made of other operators."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from attnscope.attention.nesting import nested_parts, operator_from
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import Index

__all__ = ["Combined", "common_type"]


class Combined(AttentionOperator):
    """An operator made of others; it says of itself what its first operand says.

    Attributes:
        operands: What it is made of.
    """

    def __init__(self, operands: Sequence[AttentionOperator]) -> None:
        first = operands[0]
        self.operands = tuple(operands)
        self.shape, self.dtype, self.device = first.shape, common_type(operands), first.device
        self.stochastic, self.signed, self.causal = first.stochastic, first.signed, first.causal
        self.offset, self.query_axis, self.key_axis = first.offset, first.query_axis, first.key_axis

    @property
    def valid_queries(self) -> Bool[Tensor, "*batch #head query"]:
        """Return which rows exist in the first operand."""
        return self.operands[0].valid_queries

    @abstractmethod
    def with_operands(self, operands: Sequence[AttentionOperator]) -> "Combined":
        """Return the same combination of other operands."""

    def select_heads(self, heads: Index) -> "Combined":
        """Return the combination of the chosen heads."""
        return self.with_operands([operand.select_heads(heads) for operand in self.operands])

    def item(self, index: int) -> "Combined":
        """Return the combination of one item of the batch."""
        return self.with_operands([operand.item(index) for operand in self.operands])

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the parts of the operands, by their numbers."""
        tensors, facts = {}, {}
        for number, operand in enumerate(self.operands):
            own_tensors, own_facts = nested_parts(str(number), operand)
            tensors |= own_tensors
            facts |= own_facts
        return tensors, facts

    @classmethod
    def stored_operands(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> list[AttentionOperator]:
        """Return the operands whose parts were stored, in their order."""
        count = sum(name.isdecimal() for name in facts)
        return [operator_from(str(number), tensors, facts) for number in range(count)]


def common_type(operators: Sequence[AttentionOperator]) -> torch.dtype:
    """Return the type that holds the results of all operators."""
    dtype = operators[0].dtype
    for operator in operators[1:]:
        dtype = torch.promote_types(dtype, operator.dtype)
    return dtype
