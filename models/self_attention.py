"""Multi-head self-attention, the mechanism that all others are compared with.

    Q = X W_q,  K = X W_k,  V = X W_v          split into heads
    A = softmax(Q K^T / sqrt(dim))             (head, query, key)
    Y = concat_heads(A V) W_o

Vaswani et al. 2017, arXiv:1706.03762, section 3.2; without a mask, as in vision transformers
(Dosovitskiy et al. 2020, arXiv:2010.11929). Time O(T^2 d), memory O(T d) by the fused kernels.
"""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import Mixing, SoftmaxAttention

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """Every token reads every token.

    Args:
        width: Width of the features; a multiple of `heads`.
        heads: Number of heads.

    Raises:
        ValueError: The heads do not divide the width.

    Example:
        >>> sum(p.numel() for p in SelfAttention(8, 2).parameters())  # 4 (64 + 8)
        288
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.mixing = Mixing()
        self.output = nn.Linear(width, width)

    def forward(
        self, features: Float[Tensor, "batch token width"], grid: Sequence[int] | None = None
    ) -> Float[Tensor, "batch token width"]:
        """Return what the tokens read of each other; `grid` says how patches lie."""
        query, key, value = rearrange(
            self.project(features),
            "batch token (role head dim) -> role batch head token dim",
            role=3,
            head=self.heads,
        )
        axis = "token" if grid is None else "patch"
        attention = SoftmaxAttention(query, key, causal=False, query_axis=axis, key_axis=axis)
        read = self.mixing(attention, value, grid)
        return self.output(rearrange(read, "batch head token dim -> batch token (head dim)"))
