"""Attention as a linear operator: the algebra that every metric is written against."""

from attnscope.attention.algebra import (
    ProductAttention,
    ScaledAttention,
    SumAttention,
    TransposedAttention,
)
from attnscope.attention.bias import AlibiBias, Bias, DenseBias, RelativeBias
from attnscope.attention.dense import DenseAttention
from attnscope.attention.errors import OperatorError
from attnscope.attention.head_mean import MeanHeadAttention
from attnscope.attention.key_function import KeyFunction, key_position
from attnscope.attention.mask import Mask
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.outer import OuterAttention
from attnscope.attention.rollout import RolloutOperator
from attnscope.attention.row_scale import RowScaledAttention
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.stored import OPERATORS
from attnscope.attention.tile import TILE_LIMIT

__all__ = [
    "OPERATORS",
    "TILE_LIMIT",
    "AlibiBias",
    "AttentionOperator",
    "Bias",
    "DenseAttention",
    "DenseBias",
    "KeyFunction",
    "Mask",
    "MeanHeadAttention",
    "OperatorError",
    "OuterAttention",
    "ProductAttention",
    "RelativeBias",
    "RolloutOperator",
    "RowScaledAttention",
    "ScaledAttention",
    "SoftmaxAttention",
    "SumAttention",
    "TransposedAttention",
    "key_position",
]
