"""Content-aware token aggregation (CATANet): tokens attend within groups of similar content.

    b_i = argmax_m cos(x_i, c_m) for M token centers;  tokens are sorted by b, in a stable order
    intra:   sub-groups of g sorted tokens attend to their own and the next sub-group       (g, 2g)
    centers: every token attends to all centers, with a softmax of its own                  (N, M)
    y = (intra + centers) W, unsorted;  x = x + Conv1x1(y);  x = x + FFN(LN(x))

Sub-groups are equal pieces of the sorted list, not aligned with the content groups. After the last
token the list goes on with its mirror image, so the last sub-groups see some tokens twice. Cost
O(N 2g d) + O(N M d) per head, linear in the number of tokens.

In training the centers move by spherical k-means steps and a moving average of them is kept; before
the first step they are means of raster chunks of the batch at hand, so what an untrained module
gives depends on the batch.

Reference: Liu et al. 2025, arXiv:2503.06896; the details are those of the released code, but for
the stable sort (there, equal tokens may be ordered differently from machine to machine).
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, pad

from attnscope.attention import Mixing, SoftmaxAttention, WindowedAttention
from attnscope.models.token_aggregation_centers import chunk_means, moved_centers

__all__ = ["FeedForward", "TokenAggregation", "sub_groups"]


def sub_groups(
    order: Int[Tensor, "*batch token"], size: int
) -> tuple[Int[Tensor, "*batch group query_slot"], Int[Tensor, "*batch group key_slot"]]:
    """Return the queries and the keys of each sub-group of a sorted list of tokens.

    Keys are the sub-group's own tokens and the next one's, where the list is followed by its mirror
    image. Slots that the last sub-group cannot fill hold no query, -1.

    Args:
        order: Tokens in sorted order.
        size: Tokens of a sub-group; at most as many as there are.

    Raises:
        ValueError: The list is too short to be mirrored as far as the last sub-group looks.

    Example:
        >>> queries, keys = sub_groups(torch.arange(10), 4)
        >>> queries[2].tolist(), keys[2].tolist()  # 8 and 9 stand there twice
        ([8, 9, -1, -1], [8, 9, 9, 8, 7, 6, 5, 4])
    """
    length = order.shape[-1]
    size = min(length, size)
    missing = -length % size
    if missing + size > length:
        raise ValueError(
            f"sub-groups of {size} cannot be filled from {length} tokens and their mirror image; "
            f"it takes {size} tokens or less, or {-(-3 * size // 2)} or more"
        )
    mirrored = torch.cat([order, order[..., length - missing - size :].flip(-1)], dim=-1)
    queries = pad(order, (0, missing), value=-1)
    return queries.unflatten(-1, (-1, size)), mirrored.unfold(-1, 2 * size, size)


class FeedForward(nn.Module):
    """`Linear(h + GELU(DW5x5(h)))` with `h = GELU(Linear(x))`."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.convolution = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)

    def forward(
        self, tokens: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the next tokens of a map of `grid` rows and columns."""
        hidden = gelu(self.widen(tokens))
        image = rearrange(
            hidden, "batch (row column) channel -> batch channel row column", row=grid[0]
        )
        near = rearrange(
            gelu(self.convolution(image)),
            "batch channel row column -> batch (row column) channel",
        )
        return self.narrow(hidden + near)


class TokenAggregation(nn.Module):
    """The token aggregation block: attention within sub-groups and to the centers, and an MLP.

    Args:
        channels: Channels, which the heads divide.
        width: Channels of queries and keys, which the heads divide.
        hidden: Hidden channels of the MLP.
        heads: Heads.
        centers: Number of token centers.
        group: Tokens of a sub-group.
        steps: k-means steps of each training pass.
        decay: Share of the old centers in their moving average.
    """

    centers: Tensor
    ready: Tensor

    def __init__(  # noqa: PLR0913 - the sizes of the block
        self,
        channels: int,
        width: int,
        hidden: int,
        heads: int,
        *,
        centers: int,
        group: int,
        steps: int = 5,
        decay: float = 0.999,
    ) -> None:
        super().__init__()
        self.heads, self.group, self.steps, self.decay = heads, group, steps, decay
        self.norm, self.mlp_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query, self.key, self.center_key = (
            nn.Linear(channels, width, bias=False) for _ in range(3)
        )
        self.value, self.center_value, self.projection = (
            nn.Linear(channels, channels, bias=False) for _ in range(3)
        )
        self.intra_mixing, self.center_mixing = Mixing(), Mixing()
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.mlp = FeedForward(channels, hidden)
        self.register_buffer("centers", torch.randn(centers, channels))
        self.register_buffer("ready", torch.tensor(False))

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the next features, of the same shape."""
        grid = features.shape[-2], features.shape[-1]
        tokens = rearrange(features, "batch channel row column -> batch (row column) channel")
        normal = self.norm(tokens)
        centers = self.current_centers(normal)
        output = self.intra_mixing(
            self.intra_attention(normal, self.order(normal, centers)),
            self._split(self.value(normal)),
            grid=grid,
        ) + self.center_mixing(
            self.center_attention(normal, centers),
            self._shared(self.center_value(centers), len(tokens)),
            grid=grid,
        )
        mixed = self.projection(rearrange(output, "batch head token dim -> batch token (head dim)"))
        image = rearrange(
            mixed, "batch (row column) channel -> batch channel row column", row=grid[0]
        )
        mixed = rearrange(
            self.pointwise(image), "batch channel row column -> batch (row column) channel"
        )
        tokens = tokens + mixed
        tokens = tokens + self.mlp(self.mlp_norm(tokens), grid)
        if self.training:
            self._remember(centers.detach())
        return rearrange(
            tokens, "batch (row column) channel -> batch channel row column", row=grid[0]
        )

    def current_centers(
        self, tokens: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "center channel"]:
        """Return the centers that serve normalized tokens; in training, after their steps.

        The last step passes gradients on to the tokens.
        """
        centers = self.centers
        if not self.ready:
            centers = chunk_means(tokens, len(centers)).detach()
        if not self.training:
            return centers
        units = normalize(tokens, dim=-1)
        for _ in range(self.steps - 1):
            centers = moved_centers(units.detach(), normalize(centers, dim=-1))
        return moved_centers(units, normalize(centers, dim=-1))

    def order(
        self, tokens: Float[Tensor, "batch token channel"], centers: Float[Tensor, "center channel"]
    ) -> Int[Tensor, "batch token"]:
        """Return the tokens sorted by their nearest center; ties stay in raster order."""
        with torch.no_grad():
            nearest = normalize(tokens, dim=-1) @ normalize(centers, dim=-1).mT
            return nearest.argmax(-1).argsort(dim=-1, stable=True)

    def intra_attention(
        self, tokens: Float[Tensor, "batch token channel"], order: Int[Tensor, "batch token"]
    ) -> WindowedAttention:
        """Return the attention within sub-groups, as an operator over tokens in raster order."""
        queries, keys = sub_groups(order, self.group)
        inner = SoftmaxAttention(
            self._gathered(self.query(tokens), queries),
            self._gathered(self.key(tokens), keys),
            causal=False,
        )
        length = tokens.shape[1]
        axes = {"query_axis": "patch", "key_axis": "patch"}
        return WindowedAttention(inner, queries, keys, length, length, offset=0, **axes)

    def center_attention(
        self, tokens: Float[Tensor, "batch token channel"], centers: Float[Tensor, "center channel"]
    ) -> SoftmaxAttention:
        """Return the attention of tokens to the centers."""
        return SoftmaxAttention(
            self._split(self.query(tokens)),
            self._shared(self.center_key(centers), len(tokens)),
            causal=False,
            query_axis="patch",
            key_axis="center",
        )

    def _remember(self, centers: Float[Tensor, "center channel"]) -> None:
        self.centers.copy_(self.centers.lerp(centers, 1 - self.decay) if self.ready else centers)
        self.ready.fill_(True)

    def _split(
        self, tokens: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch head token dim"]:
        return rearrange(tokens, "batch token (head dim) -> batch head token dim", head=self.heads)

    def _shared(
        self, centers: Float[Tensor, "center channel"], batch: int
    ) -> Float[Tensor, "{batch} head center dim"]:
        return self._split(centers.expand(batch, -1, -1))

    def _gathered(
        self, tokens: Float[Tensor, "batch token channel"], index: Int[Tensor, "batch group slot"]
    ) -> Float[Tensor, "batch group head slot dim"]:
        items = torch.arange(len(tokens), device=tokens.device)[:, None, None]
        return rearrange(
            tokens[items, index.clamp_min(0)],
            "batch group slot (head dim) -> batch group head slot dim",
            head=self.heads,
        )
