"""UniFormer's token pruning: attention among the patches that the class token has looked at most.

A block keeps a share of the patches, lets one token stand for all others, and attends among these
alone (the slow and fast updates of Evo-ViT):

    keep     the int(0.5 N) patches of the largest score g;  r = sum_drop g_i x_i / sum_drop g_i
    slow     (class, kept, r): x = x + Attention(norm(x));  x = x + MLP(norm(x))
    fast     dropped patches: x = x + what Attention and MLP added to r
    score    g = (1 - t) g + t (class token's attention, the mean over heads), of the kept patches

Cost O(N^2 C / 4) for N patches of width C. The map is captured over the positions (class,
representative, patches in raster order): rows and columns of dropped patches are empty, and so are
the representative's where nothing is dropped. A score is a value that is passed on: nothing is kept
between two calls.

Reference: Li et al. 2023, arXiv:2201.09450, and Xu et al. 2022, arXiv:2108.01390; the details are
those of the released code.
"""

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from attnscope.attention import Mixing, SoftmaxAttention, WindowedAttention

__all__ = ["PlacedAttention", "PruningBlock", "pooled_score"]


class PlacedAttention(nn.Module):
    """Softmax attention among tokens that stand at some of the positions.

    Args:
        channels: Width.
        heads: Number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.mixing = Mixing()
        self.output = nn.Linear(channels, channels)

    def forward(
        self,
        tokens: Float[Tensor, "batch slot channel"],
        places: Int[Tensor, "batch slot"],
        grid: tuple[int, int],
    ) -> tuple[Float[Tensor, "batch slot channel"], Float[Tensor, "batch slot"]]:
        """Return what the tokens read, and the first token's attention, the mean over heads.

        Args:
            tokens: Those that attend.
            places: Their positions: class, representative, then patches in raster order.
            grid: Rows and columns of the patches.
        """
        query, key, value = rearrange(
            self.query_key_value(tokens),
            "batch slot (part head dim) -> part batch head slot dim",
            part=3,
            head=self.heads,
        )
        window = "batch head slot dim -> batch 1 head slot dim"
        among = SoftmaxAttention(rearrange(query, window), rearrange(key, window), causal=False)
        table, positions = places.unsqueeze(1), 2 + grid[0] * grid[1]
        attention = WindowedAttention(
            among, table, table, positions, positions, query_axis="patch", key_axis="patch"
        )
        index = places[:, None, :, None].expand_as(value)
        laid_out = value.new_zeros(*value.shape[:2], positions, value.shape[-1])
        mixed = self.mixing(attention, laid_out.scatter(2, index, value), grid=grid)
        read = rearrange(mixed.gather(2, index), "batch head slot dim -> batch slot (head dim)")
        looks = reduce(among.rows([0]), "batch 1 head 1 slot -> batch slot", "mean")
        return self.output(read), looks


class PruningBlock(nn.Module):
    """A global block whose attention sees the kept patches and one token for all others.

    Args:
        channels: Width.
        heads: Number of heads.
        ratio: Width of the MLP's hidden layer, in widths.
        keep: Share of the patches that are kept.
        renewal: Share of a kept patch's score that is new.
    """

    def __init__(
        self, channels: int, heads: int, ratio: int, *, keep: float, renewal: float
    ) -> None:
        super().__init__()
        self.keep, self.renewal = keep, renewal
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.attention_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attention = PlacedAttention(channels, heads)
        self.mlp_norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(channels, ratio * channels),
            nn.GELU(),
            nn.Linear(ratio * channels, channels),
        )

    def forward(
        self,
        class_token: Float[Tensor, "batch 1 channel"],
        features: Float[Tensor, "batch channel row column"],
        score: Float[Tensor, "batch patch"],
    ) -> tuple[
        Float[Tensor, "batch 1 channel"],
        Float[Tensor, "batch channel row column"],
        Float[Tensor, "batch patch"],
    ]:
        """Return class token, features and scores of the next block."""
        features = features + self.position(features)
        grid = (features.shape[-2], features.shape[-1])
        patches = rearrange(features, "batch channel row column -> batch (row column) channel")
        kept, dropped = _ranked(score, int(self.keep * score.shape[1]))
        tokens = torch.cat([class_token, _at(patches, kept), *_merged(patches, dropped, score)], 1)
        places = [torch.zeros_like(kept[:, :1]), kept + 2, torch.ones_like(dropped[:, :1])]
        read, looks = self.attention(self.attention_norm(tokens), torch.cat(places, 1), grid)
        made = self.mlp(self.mlp_norm(tokens + read))
        slow, count = tokens + read + made, kept.shape[1]
        fast = patches + (read + made)[:, -1:]  # overwritten below where nothing was dropped
        patches = fast.scatter(
            1, kept.unsqueeze(-1).expand(-1, -1, patches.shape[-1]), slow[:, 1 : 1 + count]
        )
        new = torch.lerp(score.gather(1, kept), looks[:, 1 : 1 + count], self.renewal)
        features = rearrange(
            patches, "batch (row column) channel -> batch channel row column", row=grid[0]
        )
        return slow[:, :1], features, score.scatter(1, kept, new)


def pooled_score(
    score: Float[Tensor, "batch patch"], grid: tuple[int, int]
) -> Float[Tensor, "batch pooled"]:
    """Return scores of 2 x 2 patches each, with the sum of what they were.

    Example:
        >>> pooled_score(torch.tensor([[1.0, 2.0, 5.0, 4.0]]), (2, 2)).tolist()
        [[12.0]]
    """
    mapped = rearrange(score, "batch (row column) -> batch row column", row=grid[0])
    pooled = rearrange(avg_pool2d(mapped, 2), "batch row column -> batch (row column)")
    return pooled * (score.sum(1, keepdim=True) / pooled.sum(1, keepdim=True))


def _ranked(
    score: Float[Tensor, "batch patch"], count: int
) -> tuple[Int[Tensor, "batch kept"], Int[Tensor, "batch dropped"]]:
    order = score.argsort(dim=1, descending=True, stable=True)
    return order[:, :count], order[:, count:]


def _at(
    patches: Float[Tensor, "batch patch channel"], chosen: Int[Tensor, "batch some"]
) -> Float[Tensor, "batch some channel"]:
    return patches.gather(1, chosen.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def _merged(
    patches: Float[Tensor, "batch patch channel"],
    dropped: Int[Tensor, "batch dropped"],
    score: Float[Tensor, "batch patch"],
) -> list[Float[Tensor, "batch 1 channel"]]:
    """Return the token that stands for the dropped patches, none where nothing was dropped."""
    if not dropped.shape[1]:
        return []
    weights = score.gather(1, dropped)
    weights = weights / weights.sum(1, keepdim=True)
    merged = einsum(
        _at(patches, dropped), weights, "batch patch channel, batch patch -> batch channel"
    )
    return [merged.unsqueeze(1)]
