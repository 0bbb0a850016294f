"""`RolloutOperator`: attention followed through all layers and their residual connections."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from attnscope.attention.algebra import ProductAttention
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import Index, indices

__all__ = ["RolloutOperator"]


class RolloutOperator(ProductAttention):
    """`product over layers of (mean_h A_l + I) / 2`, later layers on the left.

    Nothing is multiplied out: the rollout of one token over L layers costs L thin products. Rows
    are normalized as Abnar and Zuidema do, which for distributions is the factor one half.

    Args:
        layers: The layers' operators, first layer first, each mapping a sequence to itself.

    Raises:
        OperatorError: There is no layer, or one does not map a sequence to itself.

    Reference: Abnar and Zuidema 2020, arXiv:2005.00928, section 3.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]))
        >>> [[round(float(x), 4) for x in row] for row in RolloutOperator([A, A]).dense()[0]]
        [[0.5875, 0.4125], [0.165, 0.835]]
    """

    def __init__(self, layers: Sequence[AttentionOperator]) -> None:
        if not layers:
            raise OperatorError("a rollout needs at least one layer; none was given")
        for layer in layers:
            if layer.queries != layer.keys or layer.offset is None:
                raise OperatorError(
                    f"a rollout needs layers that map a sequence to itself; got {layer!r}"
                )
        super().__init__([_ResidualMean(layer) for layer in reversed(layers)])


class _ResidualMean(ProductAttention):
    """`(mean_h A + I)`, each row divided by its sum."""

    def __init__(self, layer: AttentionOperator) -> None:
        mean = layer.mean_heads()
        super().__init__([mean])
        self.mean = mean
        self.stochastic = not mean.signed
        self._factor = 1 / (1 + mean.row_mass()).unsqueeze(-1)

    def apply(
        self, values: Float[Tensor, "*batch 1 key dim"]
    ) -> Float[Tensor, "*batch 1 query dim"]:
        """Return the mean of reading and keeping."""
        return (self.mean.apply(values) + values) * self._factor

    def apply_transpose(
        self, weights: Float[Tensor, "*batch 1 query dim"]
    ) -> Float[Tensor, "*batch 1 key dim"]:
        """Return what is received and what is kept."""
        weights = weights * self._factor
        return self.mean.apply_transpose(weights) + weights

    def item(self, index: int) -> "_ResidualMean":
        """Return the mean of one item of the batch."""
        return _ResidualMean(self.operands[0].item(index))

    def select_heads(self, heads: Index) -> "_ResidualMean":
        """Return itself: there is one head."""
        indices(heads, 1, "head")
        return self
