"""`RelevanceOperator`: influence followed through all layers, added to the residual connections."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.algebra import ProductAttention
from attnscope.attention.errors import OperatorError
from attnscope.attention.operator import AttentionOperator
from attnscope.attention.tile import Index, indices

__all__ = ["NormalizedRelevance", "RelevanceOperator"]


class RelevanceOperator(ProductAttention):
    """`R = product over layers of (I + mean_h A_l)`, later layers on the left.

    Nothing is multiplied out: the relevance of one token over L layers costs L thin products. Rows
    are not normalized, which is what tells it from a rollout.

    Args:
        layers: What each layer's queries take from its keys, first layer first, each mapping a
            sequence to itself; entries need not be shares.

    Raises:
        OperatorError: There is no layer, or one does not map a sequence to itself.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, the rule of self-attention.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]))
        >>> RelevanceOperator([A, A]).dense().tolist()
        [[[2.25, 0.0], [0.0, 1.0]]]
    """

    def __init__(self, layers: Sequence[AttentionOperator]) -> None:
        if not layers:
            raise OperatorError("a relevance needs at least one layer; none was given")
        for layer in layers:
            if layer.queries != layer.keys or layer.offset is None:
                raise OperatorError(
                    f"a relevance needs layers that map a sequence to itself; got {layer!r}"
                )
        super().__init__([layer.mean_heads() for layer in reversed(layers)])
        self.stochastic = False

    def apply(
        self, values: Float[Tensor, "*batch 1 key dim"]
    ) -> Float[Tensor, "*batch 1 query dim"]:
        """Return the values and what the layers add to them."""
        return values + self.excess(values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch 1 query dim"]
    ) -> Float[Tensor, "*batch 1 key dim"]:
        """Return the weights and what the layers send back of them."""
        return weights + self.excess_transpose(weights)

    def excess(
        self, values: Float[Tensor, "*batch 1 key dim"]
    ) -> Float[Tensor, "*batch 1 query dim"]:
        """Return `(R - I) V`, which is exact where R is close to I."""
        added = torch.zeros_like(values)
        for layer in reversed(self.operands):
            added = added + layer.apply(values + added)
        return added

    def excess_transpose(
        self, weights: Float[Tensor, "*batch 1 query dim"]
    ) -> Float[Tensor, "*batch 1 key dim"]:
        """Return `(R - I)^T U`."""
        added = torch.zeros_like(weights)
        for layer in self.operands:
            added = added + layer.apply_transpose(weights + added)
        return added

    def item(self, index: int) -> "RelevanceOperator":
        """Return the relevance of one item of the batch."""
        return self.with_operands([layer.item(index) for layer in self.operands])

    def with_operands(self, operands: Sequence[AttentionOperator]) -> "RelevanceOperator":
        """Return the relevance through other layers, last layer first."""
        return RelevanceOperator(list(reversed(operands)))

    def select_heads(self, heads: Index) -> "RelevanceOperator":
        """Return itself: there is one head."""
        indices(heads, 1, "head")
        return self


class NormalizedRelevance(ProductAttention):
    """`D (R - I) + I` with D such that the rows of `D (R - I)` sum to 1.

    It is how one modality's own relevance enters that of the other. A row to which no layer added
    anything stays that of I; the public code divides 0 by 0 there.

    Args:
        relevance: `R`.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, the normalization of the rule of
        co-attention.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.0, 0.0], [0.1, 0.3]]]))
        >>> [[round(float(x), 4) for x in row]
        ...  for row in NormalizedRelevance(RelevanceOperator([A])).dense()[0]]
        [[1.0, 0.0], [0.25, 1.75]]
    """

    def __init__(self, relevance: RelevanceOperator) -> None:
        super().__init__([relevance])
        self.stochastic = False
        ones = torch.ones((*self.shape[:-2], self.keys, 1), dtype=self.dtype, device=self.device)
        mass = relevance.excess(ones)
        self._factor = torch.where(mass == 0, 0.0, 1 / mass)
        self._relevance = relevance

    def apply(
        self, values: Float[Tensor, "*batch 1 key dim"]
    ) -> Float[Tensor, "*batch 1 query dim"]:
        """Return the values and the shares of what the layers add."""
        return values + self._factor * self._relevance.excess(values)

    def apply_transpose(
        self, weights: Float[Tensor, "*batch 1 query dim"]
    ) -> Float[Tensor, "*batch 1 key dim"]:
        """Return the weights and what the shares send back of them."""
        return weights + self._relevance.excess_transpose(self._factor * weights)

    def item(self, index: int) -> "NormalizedRelevance":
        """Return the normalized relevance of one item of the batch."""
        return NormalizedRelevance(self._relevance.item(index))

    def select_heads(self, heads: Index) -> "NormalizedRelevance":
        """Return itself: there is one head."""
        indices(heads, 1, "head")
        return self
