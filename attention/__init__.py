"""Attention as a linear operator: the algebra that every metric is written against."""

from attnscope.attention.algebra import (
    ProductAttention,
    SumAttention,
    TransposedAttention,
)
from attnscope.attention.bias import AlibiBias, Bias, DenseBias, RelativeBias
from attnscope.attention.convolution import ConvolutionAttention
from attnscope.attention.dense import DenseAttention
from attnscope.attention.display import held_bytes
from attnscope.attention.errors import OperatorError
from attnscope.attention.gate import GateAttention
from attnscope.attention.grouped import GroupedAttention
from attnscope.attention.hadamard import HadamardAttention
from attnscope.attention.head_mean import MeanHeadAttention
from attnscope.attention.indexed import IndexedAttention, indexed_scores
from attnscope.attention.kernel import KernelAttention
from attnscope.attention.key_function import KeyFunction, key_position
from attnscope.attention.mask import Mask
from attnscope.attention.mixing import Mixing
from attnscope.attention.nesting import nested_parts, operator_from
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.outer import OuterAttention
from attnscope.attention.rollout import RolloutOperator
from attnscope.attention.row_scale import RowScaledAttention
from attnscope.attention.scale import ScaledAttention
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.stored import OPERATORS
from attnscope.attention.tile import TILE_LIMIT
from attnscope.attention.windowed import WindowedAttention

__all__ = [
    "OPERATORS",
    "TILE_LIMIT",
    "AlibiBias",
    "AttentionOperator",
    "Bias",
    "ConvolutionAttention",
    "DenseAttention",
    "DenseBias",
    "GateAttention",
    "GroupedAttention",
    "HadamardAttention",
    "IndexedAttention",
    "KernelAttention",
    "KeyFunction",
    "Mask",
    "MeanHeadAttention",
    "Mixing",
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
    "WindowedAttention",
    "held_bytes",
    "indexed_scores",
    "key_position",
    "nested_parts",
    "operator_from",
]
