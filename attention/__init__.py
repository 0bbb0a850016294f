"""Attention as a linear operator: the algebra that every metric is written against."""

from attnscope.attention.algebra import (
    MeanHeadAttention,
    ProductAttention,
    RowScaledAttention,
    ScaledAttention,
    SumAttention,
    TransposedAttention,
)
from attnscope.attention.bias import AlibiBias, Bias, DenseBias, RelativeBias
from attnscope.attention.dense import DenseAttention
from attnscope.attention.errors import OperatorError
from attnscope.attention.mask import Mask
from attnscope.attention.operator import TILE_LIMIT, AttentionOperator, KeyFunction, key_position
from attnscope.attention.outer import OuterAttention
from attnscope.attention.rollout import RolloutOperator
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.stored import OPERATORS

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
