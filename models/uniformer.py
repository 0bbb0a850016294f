"""UniFormer's two aggregators: local attention by position alone, global attention by content.

    DPE     x = x + DW3x3(x)                                 dynamic position embedding
    MHRA    R_n(X) = A_n V_n(X),  MHRA(X) = Concat_n(R_n(X)) U
    local   A_n(i, j) = a_n[i - j] for j in a 5 x 5 window around i: learned, no content, no softmax
    global  A_n(i, j) = softmax_j(Q_n(X_i) . K_n(X_j) / sqrt(d))
    block   DPE;  x = x + MHRA(norm(x));  x = x + FFN(norm(x)),  FFN = linear, GELU, linear

Local costs O(25 N C), global O(N^2 C) for N positions of width C. Local norms are batch norms,
global ones layer norms; each channel is a head of the local affinity (the released code). One map
of all local heads is `ConvolutionAttention(kernel.abs().mean(0, keepdim=True), grid)`.

Reference: Li et al. 2022, arXiv:2201.04676, and 2023, arXiv:2201.09450; the details are those of
the released code.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import ConvolutionAttention, Mixing
from attnscope.models.self_attention import SelfAttention

__all__ = ["GlobalBlock", "LocalAttention", "LocalBlock"]


class LocalAttention(nn.Module):
    """Local relation aggregation: every channel mixes a window by its own learned affinity.

    Args:
        channels: Width, and number of heads.
        window: Side of the window; odd.
    """

    def __init__(self, channels: int, window: int = 5) -> None:
        super().__init__()
        self.value = nn.Conv2d(channels, channels, 1)
        # Holds the affinity and a bias; it is applied as an operator, so that it can be seen.
        self.affinity = nn.Conv2d(channels, channels, window, groups=channels)
        self.mixing = Mixing()
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the mixed features."""
        batch, _, *grid = features.shape
        kernel = rearrange(self.affinity.weight, "head 1 down right -> head down right")
        attention = ConvolutionAttention(
            kernel.expand(batch, -1, -1, -1), grid, query_axis="patch", key_axis="patch"
        )
        values = rearrange(
            self.value(features), "batch channel row column -> batch channel (row column) 1"
        )
        mixed = self.mixing(attention, values, grid=grid)
        mixed = rearrange(
            mixed, "batch channel (row column) 1 -> batch channel row column", row=grid[0]
        )
        if self.affinity.bias is not None:
            mixed = mixed + self.affinity.bias[:, None, None]
        return self.output(mixed)


class LocalBlock(nn.Module):
    """Position, local attention and MLP, with batch norms.

    Args:
        channels: Width.
        ratio: Width of the MLP's hidden layer, in widths.
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.attention_norm = nn.BatchNorm2d(channels)
        self.attention = LocalAttention(channels)
        self.mlp_norm = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, ratio * channels, 1),
            nn.GELU(),
            nn.Conv2d(ratio * channels, channels, 1),
        )

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the features of the next block."""
        features = features + self.position(features)
        features = features + self.attention(self.attention_norm(features))
        return features + self.mlp(self.mlp_norm(features))


class GlobalBlock(nn.Module):
    """Position, global attention and MLP, with layer norms.

    Args:
        channels: Width.
        heads: Number of heads.
        ratio: Width of the MLP's hidden layer, in widths.
    """

    def __init__(self, channels: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.attention_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attention = SelfAttention(channels, heads)
        self.mlp_norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(channels, ratio * channels),
            nn.GELU(),
            nn.Linear(ratio * channels, channels),
        )

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the features of the next block."""
        features = features + self.position(features)
        grid = (features.shape[-2], features.shape[-1])
        tokens = rearrange(features, "batch channel row column -> batch (row column) channel")
        tokens = tokens + self.attention(self.attention_norm(tokens), grid)
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        return rearrange(
            tokens, "batch (row column) channel -> batch channel row column", row=grid[0]
        )
