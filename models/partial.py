"""Partial attention (PATNet): a convolution on some channels, a light attention on the others.

    x = [x1 | x2], x1 = a quarter of the channels
    PAT_ch   x1 = Conv3x3(x1);  u = [mean, std over positions of x2];
             x2 = BN(x2 * hardsigmoid(BN(Linear(u))))             a gate per channel
    PAT_sf   x1 = Conv3x3(x1);  x2 = MHSA(LN(x2)),  scores = q . k / sqrt(d) + b[distance]
    PAT_sp   z = [z1 | z2] halves; z1 = BN(z1 * hardsigmoid(Linear(z1 -> 1)));  z2 = Linear(BN(z2))
                                                                  one gate per position

Cost for N positions of width C: a sixteenth of a full convolution, gates O(C^2) + O(N C), softmax
attention O(N^2 C) in the last stage alone. PAT_sf mixes positions on its own channels only; what it
says of attention holds for three quarters of the width. The relative bias is image RPE: one number
per head and bucket of rounded Euclidean distances.

Reference: Huang et al. 2025, arXiv:2503.03148, and the released code of its sister paper,
arXiv:2502.01303, which has the same blocks; the bias is that of Wu et al. 2021, arXiv:2107.14222,
equation 18. Dropout, which only trains, is left out.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import hardsigmoid

from attnscope.attention import DenseBias, GateAttention, Mixing, SoftmaxAttention

__all__ = [
    "PartialChannelAttention",
    "PartialSelfAttention",
    "PartialSpatialAttention",
    "distance_buckets",
]

_NEAR, _LAST, _FAR = 20, 40, 160
"""Distances with a bucket of their own, the last bucket, and the distance at which it starts."""


def distance_buckets(rows: int, columns: int) -> Int[Tensor, "query key"]:
    """Return the bucket of each pair of positions of a grid, by their rounded distance.

    Up to 20 each distance has its own bucket, from there to 160 they widen logarithmically, and
    beyond all share the last. Buckets count from 40: the table has 81, for distances of both signs,
    but a length has none.

    Example:
        >>> distance_buckets(1, 31)[0, [0, 1, 20, 30]].tolist()  # 20 + 20 ln(1.5) / ln(8) = 23.9
        [40, 41, 60, 64]
        >>> distance_buckets(2, 2)[0].tolist()  # a diagonal, 1.41, is rounded to 1
        [40, 41, 41, 41]
    """
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    distance = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist").round()
    widening = torch.log(distance.clamp_min(_NEAR) / _NEAR) / math.log(_FAR / _NEAR)
    far = (_NEAR + widening * (_LAST - _NEAR)).round().clamp_max(_LAST)
    return torch.where(distance <= _NEAR, distance, far).long() + _LAST


class PartialChannelAttention(nn.Module):
    """PAT_ch: the untouched channels are gated by their own means and spreads.

    Args:
        channels: Width; a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // 4
        rest = channels - part
        self.widths = (part, rest)
        self.convolution = nn.Conv2d(part, part, 3, padding=1, bias=False)
        self.gate = nn.Conv1d(rest, rest, 2, bias=False)
        self.gate_norm = nn.BatchNorm1d(rest)
        self.mixing = Mixing()
        self.norm = nn.BatchNorm2d(rest)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the convolved and the gated channels.

        Raises:
            ValueError: There is one position, over which nothing spreads.
        """
        if features[0, 0].numel() < 2:
            raise ValueError("a map of one position has no spread; it takes at least two")
        part, rest = features.split(self.widths, dim=1)
        values = rearrange(rest, "batch channel row column -> batch 1 channel (row column)")
        facts = torch.stack([values.mean(-1), values.std(-1)], dim=-1)
        logits = self.gate(rearrange(facts, "batch 1 channel fact -> batch channel fact"))
        gate = hardsigmoid(self.gate_norm(logits))
        attention = GateAttention(
            rearrange(gate, "batch channel 1 -> batch 1 channel"),
            query_axis="channel",
            key_axis="channel",
        )
        gated = rearrange(
            self.mixing(attention, values),
            "batch 1 channel (row column) -> batch channel row column",
            row=features.shape[-2],
        )
        return torch.cat([self.convolution(part), self.norm(gated)], dim=1)


class PartialSelfAttention(nn.Module):
    """PAT_sf: softmax attention with a bias by distance, among the untouched channels.

    Args:
        channels: Width; a multiple of 4.
        heads: Number of heads.

    Raises:
        ValueError: The heads do not divide three quarters of the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        part = channels // 4
        rest = channels - part
        if rest % heads:
            raise ValueError(f"{heads} heads do not divide {rest} of {channels} channels")
        self.widths, self.heads = (part, rest), heads
        self.convolution = nn.Conv2d(part, part, 3, padding=1, bias=False)
        self.norm = nn.LayerNorm(rest, eps=1e-6)
        self.query_key_value = nn.Linear(rest, 3 * rest, bias=False)
        self.distance_bias = nn.Parameter(torch.zeros(heads, 2 * _LAST + 1))
        self.mixing = Mixing()
        self.output = nn.Linear(rest, rest)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the convolved channels and what the others read of each other."""
        part, rest = features.split(self.widths, dim=1)
        grid = (features.shape[-2], features.shape[-1])
        tokens = self.norm(
            rearrange(rest, "batch channel row column -> batch (row column) channel")
        )
        query, key, value = rearrange(
            self.query_key_value(tokens),
            "batch token (part head dim) -> part batch head token dim",
            part=3,
            head=self.heads,
        )
        buckets = distance_buckets(*grid).to(features.device)
        attention = SoftmaxAttention(
            query,
            key,
            causal=False,
            bias=DenseBias(self.distance_bias[:, buckets]),
            query_axis="patch",
            key_axis="patch",
        )
        mixed = self.mixing(attention, value, grid=grid)
        read = self.output(rearrange(mixed, "batch head token dim -> batch token (head dim)"))
        read = rearrange(
            read, "batch (row column) channel -> batch channel row column", row=grid[0]
        )
        return torch.cat([self.convolution(part), read], dim=1)


class PartialSpatialAttention(nn.Module):
    """PAT_sp: half of the channels are gated position by position, the others mixed linearly.

    Args:
        channels: Width; even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.gate = nn.Conv2d(half, 1, 1, bias=False)
        self.mixing = Mixing()
        self.gated_norm = nn.BatchNorm2d(half)
        self.norm = nn.BatchNorm2d(half)
        self.linear = nn.Conv2d(half, half, 1, bias=False)

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the gated and the mixed half."""
        half, rest = features.chunk(2, dim=1)
        grid = (features.shape[-2], features.shape[-1])
        gate = hardsigmoid(self.gate(half))
        attention = GateAttention(
            rearrange(gate, "batch 1 row column -> batch 1 (row column)"),
            query_axis="patch",
            key_axis="patch",
        )
        values = rearrange(half, "batch channel row column -> batch 1 (row column) channel")
        gated = rearrange(
            self.mixing(attention, values, grid=grid),
            "batch 1 (row column) channel -> batch channel row column",
            row=grid[0],
        )
        return torch.cat([self.gated_norm(gated), self.linear(self.norm(rest))], dim=1)
