"""The operators that can be stored, by the name under which a file keeps them."""

from attnscope.attention.algebra import ProductAttention, SumAttention, TransposedAttention
from attnscope.attention.convolution import ConvolutionAttention
from attnscope.attention.dense import DenseAttention
from attnscope.attention.gate import GateAttention
from attnscope.attention.grouped import GroupedAttention
from attnscope.attention.hadamard import HadamardAttention
from attnscope.attention.indexed import IndexedAttention
from attnscope.attention.kernel import KernelAttention
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.outer import OuterAttention
from attnscope.attention.row_scale import RowScaledAttention
from attnscope.attention.scale import ScaledAttention
from attnscope.attention.softmax import SoftmaxAttention
from attnscope.attention.windowed import WindowedAttention

__all__ = ["OPERATORS"]

OPERATORS: dict[str, type[AttentionOperator]] = {
    "ConvolutionAttention": ConvolutionAttention,
    "DenseAttention": DenseAttention,
    "GateAttention": GateAttention,
    "GroupedAttention": GroupedAttention,
    "HadamardAttention": HadamardAttention,
    "IndexedAttention": IndexedAttention,
    "KernelAttention": KernelAttention,
    "OuterAttention": OuterAttention,
    "ProductAttention": ProductAttention,
    "RowScaledAttention": RowScaledAttention,
    "ScaledAttention": ScaledAttention,
    "SoftmaxAttention": SoftmaxAttention,
    "SumAttention": SumAttention,
    "TransposedAttention": TransposedAttention,
    "WindowedAttention": WindowedAttention,
}
