"""Attention as a linear operator: the algebra that every metric is written against."""

from attnscope.attention.algebra import (
    ProductAttention,
    SumAttention,
    TransposedAttention,
)
from attnscope.attention.bias import AlibiBias, Bias, DenseBias, RelativeBias
from attnscope.attention.convolution import ConvolutionAttention
from attnscope.attention.delta_rule import DeltaRuleAttention
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
from attnscope.attention.mamba_block import scan_block
from attnscope.attention.mask import Mask
from attnscope.attention.mixing import Mixing
from attnscope.attention.nesting import nested_parts, operator_from
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.outer import OuterAttention
from attnscope.attention.positive_part import PositiveAttention
from attnscope.attention.relevance import NormalizedRelevance, RelevanceOperator
from attnscope.attention.rollout import RolloutOperator
from attnscope.attention.rounding import rounded
from attnscope.attention.row_scale import RowScaledAttention
from attnscope.attention.scale import ScaledAttention
from attnscope.attention.scan import ScanAttention
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.stored import OPERATORS
from attnscope.attention.tile import TILE_LIMIT
from attnscope.attention.truncated import TruncatedAttention
from attnscope.attention.windowed import WindowedAttention

__all__ = [
    "OPERATORS",
    "TILE_LIMIT",
    "AlibiBias",
    "AttentionOperator",
    "Bias",
    "ConvolutionAttention",
    "DeltaRuleAttention",
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
    "NormalizedRelevance",
    "OperatorError",
    "OuterAttention",
    "PositiveAttention",
    "ProductAttention",
    "RelativeBias",
    "RelevanceOperator",
    "RolloutOperator",
    "RowScaledAttention",
    "ScaledAttention",
    "ScanAttention",
    "SoftmaxAttention",
    "SumAttention",
    "TransposedAttention",
    "TruncatedAttention",
    "WindowedAttention",
    "held_bytes",
    "indexed_scores",
    "key_position",
    "nested_parts",
    "operator_from",
    "rounded",
    "scan_block",
]
