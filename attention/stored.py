"""The operators that can be stored, by the name under which a file keeps them."""

from attnscope.attention.dense import DenseAttention
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.outer import OuterAttention
from attnscope.attention.softmax import SoftmaxAttention

__all__ = ["OPERATORS"]

OPERATORS: dict[str, type[AttentionOperator]] = {
    "DenseAttention": DenseAttention,
    "OuterAttention": OuterAttention,
    "SoftmaxAttention": SoftmaxAttention,
}
