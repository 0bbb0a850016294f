"""`Mixing`: the tiny module through which a model of ours applies an operator."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention.operator import AttentionOperator

__all__ = ["Mixing"]


class Mixing(nn.Module):
    """Applies attention to values. It has no parameters: it is the place where a probe listens.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[[0.5, 0.5]]]]))
        >>> Mixing()(A, torch.tensor([[[[2.0], [4.0]]]])).tolist()
        [[[[3.0]]]]
    """

    def forward(
        self,
        attention: AttentionOperator,
        values: Float[Tensor, "batch #head key dim"],
        grid: Sequence[int] | None = None,
        key_grid: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch head query dim"]:
        """Return what each query reads of the values.

        Args:
            attention: The operator, with a batch axis.
            values: What is read, one head for each of the operator's or one for all.
            grid: Rows and columns (or frames, rows, columns) of the queries, in raster order; what
                stands before them are class and register tokens. None: a sequence.
            key_grid: The same of the keys; by default `grid` if there are as many keys.
        """
        del grid, key_grid  # for who listens
        return attention.apply(values)
