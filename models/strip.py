"""Strip self-attention (SSA, S2AFormer) and its block, in our reading.

    Q = x W_q                                   h heads of c channels: the "strip", c = 1 by default
    x_r = LN(Conv_{r x r, stride r}(x));        K = x_r W_k, as narrow as Q;  V = x_r W_v
    A = softmax(Q K^T / sqrt(c))                                                        (N, N / r^2)
    y = concat_h(A V) W_o

With c = 1 a score is the product of two numbers: the score matrix has rank 1 per head, and every
row of A is an exponential tilt `exp(q_t k_j)` of the same profile of keys. Cost O(N N/r^2 (c + d))
per head of d value channels, against O(2 N^2 d).

The hybrid perception block is four residual steps: a depthwise 3 x 3 convolution, SSA(LN), LIM(LN)
with the local interaction module LIM, and MLP(LN).

Reference: arXiv:2505.22195. The abstract says that K and V shrink in space and Q and K in channels;
the order of the block is known from a review. No equation, no layer of LIM, no table of sizes and
no code could be read: all else is our reading, and no published figure can be checked.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import Mixing, SoftmaxAttention

__all__ = ["HybridPerceptionBlock", "LocalInteraction", "StripAttention"]


class StripAttention(nn.Module):
    """Attention of narrow queries to narrow keys of pooled patches. Our reading, see the file.

    Args:
        channels: Channels, which the heads divide.
        heads: Heads.
        reduction: Side of a pooled patch.
        strip: Channels of a head's queries and keys.

    Raises:
        ValueError: The channels cannot be divided so.

    Example:
        >>> import torch
        >>> module = StripAttention(channels=4, heads=2, reduction=2)
        >>> attention = module.attention(torch.zeros(1, 16, 4), torch.zeros(1, 4, 4))
        >>> attention.shape, attention.rows([0])[0, 0].tolist()  # equal keys: an even share
        (torch.Size([1, 2, 16, 4]), [[0.25, 0.25, 0.25, 0.25]])
    """

    def __init__(self, channels: int, heads: int, reduction: int, strip: int = 1) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be divided among {heads} heads")
        self.heads = heads
        self.query, self.key = (
            nn.Linear(channels, heads * strip),
            nn.Linear(channels, heads * strip),
        )
        self.value, self.projection = (nn.Linear(channels, channels) for _ in range(2))
        self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
        self.norm = nn.LayerNorm(channels)
        self.mixing = Mixing()

    def attention(
        self,
        tokens: Float[Tensor, "batch token channel"],
        patches: Float[Tensor, "batch patch channel"],
    ) -> SoftmaxAttention:
        """Return the operator from tokens to pooled patches."""
        query, key = self._split(self.query(tokens)), self._split(self.key(patches))
        return SoftmaxAttention(query, key, causal=False, query_axis="patch", key_axis="patch")

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the mixed features."""
        reduced = self.reduce(features)
        grid, key_grid = features.shape[-2:], reduced.shape[-2:]
        tokens, patches = (
            rearrange(part, "batch channel row column -> batch (row column) channel")
            for part in (features, reduced)
        )
        patches = self.norm(patches)
        output = self.mixing(
            self.attention(tokens, patches),
            self._split(self.value(patches)),
            grid=grid,
            key_grid=key_grid,
        )
        mixed = self.projection(rearrange(output, "batch head token dim -> batch token (head dim)"))
        return rearrange(
            mixed, "batch (row column) channel -> batch channel row column", row=grid[0]
        )

    def _split(
        self, tokens: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch head token dim"]:
        return rearrange(tokens, "batch token (head dim) -> batch head token dim", head=self.heads)


class LocalInteraction(nn.Sequential):
    """`PW(GELU(DW3x3(PW(x))))`: neighbors interact within widened channels. Our reading."""

    def __init__(self, channels: int, ratio: int = 2) -> None:
        hidden = ratio * channels
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )


class HybridPerceptionBlock(nn.Module):
    """Position, attention, local interaction and MLP, each a residual branch.

    Args:
        channels: Channels.
        heads: Heads of the attention.
        reduction: Side of a pooled patch.
        ratio: Hidden channels of the MLP, as a multiple of `channels`.
    """

    def __init__(self, channels: int, heads: int, reduction: int, *, ratio: int = 4) -> None:
        super().__init__()
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.attention_norm, self.local_norm, self.mlp_norm = (
            nn.LayerNorm(channels) for _ in range(3)
        )
        self.attention = StripAttention(channels, heads, reduction)
        self.local = LocalInteraction(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, ratio * channels, 1),
            nn.GELU(),
            nn.Conv2d(ratio * channels, channels, 1),
        )

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the next features, of the same shape."""
        features = features + self.position(features)
        features = features + self.attention(_normalized(self.attention_norm, features))
        features = features + self.local(_normalized(self.local_norm, features))
        return features + self.mlp(_normalized(self.mlp_norm, features))


def _normalized(
    norm: nn.LayerNorm, features: Float[Tensor, "batch channel row column"]
) -> Float[Tensor, "batch channel row column"]:
    """Return the map, each pixel's channels normalized."""
    return norm(features.movedim(1, -1)).movedim(-1, 1)
