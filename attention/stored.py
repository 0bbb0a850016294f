"""The operators that can be stored, by the name under which a file keeps them."""

from attnscope.attention.algebra import ProductAttention, SumAttention, TransposedAttention
from attnscope.attention.convolution import ConvolutionAttention
from attnscope.attention.delta_rule import DeltaRuleAttention
from attnscope.attention.dense import DenseAttention
from attnscope.attention.gate import GateAttention
from attnscope.attention.grouped import GroupedAttention
from attnscope.attention.hadamard import HadamardAttention
from attnscope.attention.indexed import IndexedAttention
from attnscope.attention.kernel import KernelAttention
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.outer import OuterAttention
from attnscope.attention.positive_part import PositiveAttention
from attnscope.attention.row_scale import RowScaledAttention
from attnscope.attention.scale import ScaledAttention
from attnscope.attention.scan import ScanAttention
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.truncated import TruncatedAttention
from attnscope.attention.windowed import WindowedAttention

__all__ = ["OPERATORS"]

OPERATORS: dict[str, type[AttentionOperator]] = {
    "ConvolutionAttention": ConvolutionAttention,
    "DeltaRuleAttention": DeltaRuleAttention,
    "DenseAttention": DenseAttention,
    "GateAttention": GateAttention,
    "GroupedAttention": GroupedAttention,
    "HadamardAttention": HadamardAttention,
    "IndexedAttention": IndexedAttention,
    "KernelAttention": KernelAttention,
    "OuterAttention": OuterAttention,
    "PositiveAttention": PositiveAttention,
    "ProductAttention": ProductAttention,
    "RowScaledAttention": RowScaledAttention,
    "ScaledAttention": ScaledAttention,
    "ScanAttention": ScanAttention,
    "SoftmaxAttention": SoftmaxAttention,
    "SumAttention": SumAttention,
    "TransposedAttention": TransposedAttention,
    "TruncatedAttention": TruncatedAttention,
    "WindowedAttention": WindowedAttention,
}
