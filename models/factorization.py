"""Factorization self-attention (FaSA, FaViT): groups of channels attend to few keys each.

Of 16 parts of the channels 2 attend to pooled patches, 7 to one window and 7 to one dilated window
(with reduction r = 1: of 8 parts 1 to all tokens and 7 to one window):

    pooled:     k, v = Linear(LN(Conv_{r x r, stride r}(x)));   y = A (v + DW3x3(v))     one head
    near, far:  u = PW1x1(DW3x3(x));  windows of 7 x 7 slots, 1 or r apart, cover the map;
                p = mean of u over windows, slot by slot;  k, v = Linear(Linear(p));
                y = A (v + DW3x3(v));  A = softmax(q k^T / sqrt(d))                      (N, 49)

Cost O(N N/r^2 C_pooled + 98 N C_local) besides the projections, against O(N^2 C).

Reference: Qin et al. 2023, arXiv:2312.08614; the paper's method section was not at hand, and every
detail here is that of the released code.
"""

import math
from collections.abc import Callable

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, cat, nn

from attnscope.attention import Mixing, SoftmaxAttention
from attnscope.models.factorization_spread import window_slots

__all__ = [
    "FactorizedAttention",
    "PooledGroup",
    "WindowGroup",
    "initialize",
    "per_channel_mean",
    "released_pool",
]

SIDE = 7
"""Slots along a side of a window."""

Pool = Callable[[Tensor], Tensor]


def released_pool(windows: Float[Tensor, "*rows window channel"]) -> Float[Tensor, "*rows channel"]:
    """Return what the released code pools: means of consecutive entries of (window, channel).

    They mix neighboring channels of a few windows; with one window they are its channels. The
    released weights fit this one alone.

    Example:
        >>> import torch
        >>> released_pool(torch.arange(12.0).reshape(4, 3)).tolist()
        [1.5, 5.5, 9.5]
    """
    flat = rearrange(windows, "... window channel -> ... (window channel)")
    return reduce(flat, "... (channel entry) -> ... channel", "mean", channel=windows.shape[-1])


def per_channel_mean(
    windows: Float[Tensor, "*rows window channel"],
) -> Float[Tensor, "*rows channel"]:
    """Return each channel's mean over windows, which is what the method describes.

    Example:
        >>> import torch
        >>> per_channel_mean(torch.arange(12.0).reshape(4, 3)).tolist()
        [4.5, 5.5, 6.5]
    """
    return reduce(windows, "... window channel -> ... channel", "mean")


class PooledGroup(nn.Module):
    """Attention of one head to patches that a strided convolution has pooled.

    Args:
        channels: Channels of the group.
        reduction: Side of a patch; 1 leaves the tokens, but its convolution and norm stay.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
        self.norm = nn.LayerNorm(channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.enhance = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mixing = Mixing()

    def forward(
        self,
        query: Float[Tensor, "batch 1 query channel"],
        features: Float[Tensor, "batch channel row column"],
    ) -> Float[Tensor, "batch query channel"]:
        """Return what each token reads of the pooled patches."""
        patches = self.reduce(features)
        key_grid = patches.shape[-2:]
        patches = rearrange(patches, "batch channel row column -> batch (row column) channel")
        key, value = self.key_value(self.norm(patches)).unsqueeze(1).chunk(2, dim=-1)
        value = value + _over_grid(self.enhance, value, key_grid)
        attention = SoftmaxAttention(query, key, causal=False, query_axis="patch", key_axis="patch")
        output = self.mixing(attention, value, grid=features.shape[-2:], key_grid=key_grid)
        return rearrange(output, "batch 1 query channel -> batch query channel")


class WindowGroup(nn.Module):
    """Attention to 49 slots, each the mean of what stands there in all windows.

    Args:
        channels: Channels of the group.
        heads: Heads; they share the weights of keys and values.
        dilation: Distance between neighboring slots.
        pool: Mean over windows, `released_pool` or `per_channel_mean`.
    """

    def __init__(self, channels: int, heads: int, dilation: int, pool: Pool) -> None:
        super().__init__()
        width = channels // heads
        self.heads, self.dilation, self.pool = heads, dilation, pool
        self.mean = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.enhance = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mixing = Mixing()

    def forward(
        self,
        query: Float[Tensor, "batch head query dim"],
        features: Float[Tensor, "batch channel row column"],
    ) -> Float[Tensor, "batch query channel"]:
        """Return what each token reads of the slots."""
        grid = features.shape[-2], features.shape[-1]
        slots = window_slots(grid, self.dilation, SIDE).to(features.device)
        windows = rearrange(
            features.flatten(2)[..., slots],
            "batch (head dim) slot window -> batch head slot window dim",
            head=self.heads,
        )
        key, value = self.key_value(self.mean(self.pool(windows))).chunk(2, dim=-1)
        value = value + _over_grid(self.enhance, value, (SIDE, SIDE))
        attention = SoftmaxAttention(query, key, causal=False, query_axis="patch", key_axis="slot")
        output = self.mixing(attention, value, grid=grid, key_grid=(SIDE, SIDE))
        return rearrange(output, "batch head query dim -> batch query (head dim)")


class FactorizedAttention(nn.Module):
    """Attention of groups of channels, each to its own few keys.

    Args:
        channels: Channels, in whole 16ths (8ths where `reduction` is 1) that the heads divide.
        heads: Heads of the window groups.
        reduction: Side of a pooled patch, and dilation of the far window.
        pool: How slots are averaged over windows.

    Raises:
        ValueError: The channels cannot be divided so.

    Example:
        >>> module = FactorizedAttention(channels=32, heads=1, reduction=8)
        >>> sum(parameter.numel() for parameter in module.parameters())
        5860
    """

    def __init__(
        self, channels: int, heads: int, reduction: int, *, pool: Pool = released_pool
    ) -> None:
        super().__init__()
        parts = (1, SIDE) if reduction == 1 else (2, SIDE, SIDE)
        pooled, *local = (channels // sum(parts) * part for part in parts)
        if channels % sum(parts) or local[0] % heads:
            raise ValueError(
                f"{channels} channels cannot be cut into {sum(parts)} equal parts of which {SIDE} "
                f"are divided among {heads} heads"
            )
        self.heads, self.widths = heads, (pooled, sum(local))
        self.query, self.projection = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.pooled = PooledGroup(pooled, reduction)
        self.local = nn.Sequential(
            nn.Conv2d(sum(local), sum(local), 3, padding=1, groups=sum(local)),
            nn.Conv2d(sum(local), sum(local), 1),
        )
        self.near = WindowGroup(local[0], heads, 1, pool)
        self.far = WindowGroup(local[0], heads, reduction, pool) if reduction > 1 else None
        self.apply(initialize)

    def forward(
        self, features: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the mixed tokens of a map of `grid` rows and columns."""
        pooled_query, local_query = self.query(features).split(self.widths, dim=-1)
        image = rearrange(
            features, "batch (row column) channel -> batch channel row column", row=grid[0]
        )
        pooled, local = image.split(self.widths, dim=1)
        outputs = [self.pooled(pooled_query.unsqueeze(1), pooled)]
        groups = [self.near] if self.far is None else [self.near, self.far]
        queries = rearrange(
            local_query, "batch token (head dim) -> batch head token dim", head=self.heads
        )
        for group, query, part in zip(
            groups,
            queries.chunk(len(groups), dim=-1),
            self.local(local).chunk(len(groups), dim=1),
            strict=True,
        ):
            outputs.append(group(query, part))
        return self.projection(cat(outputs, dim=-1))


def _over_grid(
    convolution: nn.Conv2d, values: Float[Tensor, "batch head key dim"], grid: tuple[int, int]
) -> Float[Tensor, "batch head key dim"]:
    """Return the convolution of values that lie on a grid."""
    image = rearrange(
        values, "batch head (row column) dim -> batch (head dim) row column", row=grid[0]
    )
    return rearrange(
        convolution(image),
        "batch (head dim) row column -> batch head (row column) dim",
        head=values.shape[1],
    )


def initialize(module: nn.Module) -> None:
    """Give a layer the published first weights: small for linear ones, by fan-out for filters."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
